"""Static archives that stand in for CUDA's libraries while a program is linked, so that it starts on machines without them.

`python shims.py SOURCES FOLDER`: SOURCES is the `src` folder of the crate cudarc, whose declarations name every function
that may be called; FOLDER gets lib{cuda,cublas,cublasLt,curand,nvrtc}.a. Each function jumps to the real one; the library
is looked for at the first call. Where it is not there, a function returns its library's own error for that, and text is a
sentence that names the file. x86_64 Linux only; needs cc and ar."""
import os, re, subprocess, sys

# Library, module of cudarc, files to look for, what its functions return without them.
LIBRARIES = [
    ("cuda", "driver", ["libcuda.so.1", "libcuda.so"], 34),           # CUDA_ERROR_STUB_LIBRARY
    ("cublas", "cublas", ["libcublas.so.13", "libcublas.so"], 1),     # CUBLAS_STATUS_NOT_INITIALIZED
    ("cublasLt", "cublaslt", ["libcublasLt.so.13", "libcublasLt.so"], 1),
    ("curand", "curand", ["libcurand.so.10", "libcurand.so"], 203),   # CURAND_STATUS_INITIALIZATION_FAILED
    ("nvrtc", "nvrtc", ["libnvrtc.so.13", "libnvrtc.so"], 11),        # NVRTC_ERROR_INTERNAL_ERROR
]
DECLARATION = re.compile(r"^\s*(?:pub )?fn ((?:cu|nvrtc)\w+)\(.*\)(?: -> (.*?))?;\s*$", re.M)

SOURCE = r"""
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#define HIDDEN __attribute__((visibility("hidden")))
static const char *const files[] = {%(files)s};
static const char *const names[] = {%(names)s};
static const char texts[] = {%(texts)s};
HIDDEN void *%(p)s_table[%(count)d];
HIDDEN int %(p)s_ready;

static int missing(void) { return %(code)d; }
static const char *missing_text(void) { return "%(first)s was not found, or is too old"; }

static void load(void) {
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof files / sizeof *files; i++) library = dlopen(files[i], RTLD_LAZY);
    for (size_t i = 0; i < %(count)d; i++) {
        void *real = library ? dlsym(library, names[i]) : NULL;
        %(p)s_table[i] = real ? real : texts[i] ? (void *)missing_text : (void *)missing;
    }
    __atomic_store_n(&%(p)s_ready, 1, __ATOMIC_RELEASE);
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
HIDDEN void %(p)s_load(void) { pthread_once(&once, load); }

/* Keeps the arguments of the function that was called, whatever it takes. */
__asm__(
    ".text\n"
    ".hidden %(p)s_first\n"
    "%(p)s_first:\n"
    "  sub $176, %%rsp\n"
    "  movq %%rdi, (%%rsp)\n  movq %%rsi, 8(%%rsp)\n  movq %%rdx, 16(%%rsp)\n"
    "  movq %%rcx, 24(%%rsp)\n  movq %%r8, 32(%%rsp)\n  movq %%r9, 40(%%rsp)\n"
    "  movups %%xmm0, 48(%%rsp)\n  movups %%xmm1, 64(%%rsp)\n  movups %%xmm2, 80(%%rsp)\n  movups %%xmm3, 96(%%rsp)\n"
    "  movups %%xmm4, 112(%%rsp)\n  movups %%xmm5, 128(%%rsp)\n  movups %%xmm6, 144(%%rsp)\n  movups %%xmm7, 160(%%rsp)\n"
    "  call %(p)s_load\n"
    "  movq (%%rsp), %%rdi\n  movq 8(%%rsp), %%rsi\n  movq 16(%%rsp), %%rdx\n"
    "  movq 24(%%rsp), %%rcx\n  movq 32(%%rsp), %%r8\n  movq 40(%%rsp), %%r9\n"
    "  movups 48(%%rsp), %%xmm0\n  movups 64(%%rsp), %%xmm1\n  movups 80(%%rsp), %%xmm2\n  movups 96(%%rsp), %%xmm3\n"
    "  movups 112(%%rsp), %%xmm4\n  movups 128(%%rsp), %%xmm5\n  movups 144(%%rsp), %%xmm6\n  movups 160(%%rsp), %%xmm7\n"
    "  add $176, %%rsp\n"
    "  ret\n"
%(jumps)s);
"""

JUMP = '    ".globl {f}\\n.type {f}, @function\\n{f}:\\n  cmpl $0, {p}_ready(%rip)\\n  jne 1f\\n  call {p}_first\\n1: jmp *({p}_table + {at})(%rip)\\n"\n'


def main(sources, folder):
    os.makedirs(folder, exist_ok=True)
    for library, module, files, code in LIBRARIES:
        declared = dict(DECLARATION.findall(open(f"{sources}/{module}/sys/mod.rs").read()))
        if not declared:
            sys.exit(f"no function is declared in {sources}/{module}/sys/mod.rs: has cudarc changed?")
        functions, p = sorted(declared), f"evocache_shim_{library}"
        text = ", ".join
        source = SOURCE % dict(
            p=p, code=code, first=files[0], count=len(functions), files=text(f'"{f}"' for f in files),
            names=text(f'"{f}"' for f in functions), texts=text(str(int("char" in declared[f])) for f in functions),
            jumps="".join(JUMP.format(f=f, p=p, at=8 * i) for i, f in enumerate(functions)))
        path = f"{folder}/{library}"
        open(path + ".c", "w").write(source)
        subprocess.run(["cc", "-O2", "-fPIC", "-c", path + ".c", "-o", path + ".o"], check=True)
        archive = f"{folder}/lib{library}.a"
        if os.path.exists(archive):
            os.remove(archive)
        subprocess.run(["ar", "rcs", archive, path + ".o"], check=True)
        print(f"{archive}: {len(functions)} functions of {files[0]}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
