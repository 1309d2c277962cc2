"""PyTorch against evocache-worker on this CPU, with the same number of threads, in alternating rounds: one block of
each model at its true width, the decoder, and the bundled pipeline end to end. Prints a table of the fastest times and
their ratios. WORKER is a release build of evocache-worker.
pip install -r speed.requirements.txt

--precision bf16: PyTorch computes everything in bf16; evocache only the products of linear layers, and the rest in f32.

Each side counts with its fastest round, because disturbances only add time. PyTorch's blocks include their modulation
(below 1 % of a block), which evocache computes for all blocks at the start of a step."""
import argparse, json, os, subprocess, time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("worker")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--parts", nargs="+", choices=["blocks", "pipeline"], default=["blocks", "pipeline"])
parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
parser.add_argument("--model", default="", help="only models whose name contains this")
ARGS = parser.parse_args()
THREADS = str(ARGS.threads)
os.environ.update(OMP_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS)

import torch
import diffusers as d

torch.set_num_threads(ARGS.threads)
DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16}[ARGS.precision]
torch.set_grad_enabled(False)
HERE = os.path.dirname(os.path.abspath(__file__))
EMOJI = os.path.join(HERE, "..", "..", "models", "emoji")
RUNS = 2  # of each side per round


def ours(*arguments):
    environment = dict(os.environ, RAYON_NUM_THREADS=THREADS, CANDLE_NUM_THREADS=THREADS)
    done = subprocess.run([ARGS.worker, *arguments, "--precision", ARGS.precision, "--json"], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def clocked(act):
    act()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        act()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def zeros(*shape):
    return torch.zeros(shape, dtype=DTYPE)


def blocks():
    """Maps (model, block) to a call of diffusers' block on one picture."""
    def eager(module):
        return module.eval().to(DTYPE)

    pixart = eager(d.PixArtTransformer2DModel(num_layers=1, sample_size=64, caption_channels=4096,
                                              use_additional_conditions=False)).transformer_blocks[0]
    dit = eager(d.DiTTransformer2DModel(num_layers=1, sample_size=32, out_channels=8)).transformer_blocks[0]
    flux = eager(d.FluxTransformer2DModel(num_layers=1, num_single_layers=1, guidance_embeds=True))
    sd3 = eager(d.SD3Transformer2DModel(num_layers=3, num_attention_heads=24, caption_projection_dim=1536,
                                        dual_attention_layers=(0,), qk_norm="rms_norm", pos_embed_max_size=384))
    mask = zeros(2, 1, 120)
    rotary = flux.pos_embed(zeros(512 + 1024, 3))
    calls = {
        ("pixart-alpha", "block"): lambda: pixart(zeros(2, 1024, 1152), encoder_hidden_states=zeros(2, 120, 1152),
                                                  encoder_attention_mask=mask, timestep=zeros(2, 6 * 1152)),
        ("dit-xl-2", "block"): lambda: dit(zeros(2, 256, 1152), timestep=zeros(2).long(), class_labels=zeros(2).long()),
        ("flux-1-dev", "double"): lambda: flux.transformer_blocks[0](
            hidden_states=zeros(1, 1024, 3072), encoder_hidden_states=zeros(1, 512, 3072), temb=zeros(1, 3072),
            image_rotary_emb=rotary),
        ("flux-1-dev", "single"): lambda: flux.single_transformer_blocks[0](
            hidden_states=zeros(1, 1024, 3072), encoder_hidden_states=zeros(1, 512, 3072), temb=zeros(1, 3072),
            image_rotary_emb=rotary),
    }
    for i, kind in enumerate(("dual", "joint", "last")):
        calls["sd-3.5-medium", kind] = lambda i=i: sd3.transformer_blocks[i](
            hidden_states=zeros(2, 1024, 1536), encoder_hidden_states=zeros(2, 333, 1536), temb=zeros(2, 1536))
    if ARGS.precision != "f32":
        return calls  # evocache's decoder is always f32
    vae = eager(d.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2,
                                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4))
    calls["vae-512", "f32"] = lambda: vae.decode(zeros(1, 4, 64, 64)).sample
    return calls


def pipeline():
    """A call of the bundled pipeline from embeddings to pictures: 4 pictures, 10 steps, with guidance."""
    pipe = d.PixArtAlphaPipeline.from_pretrained(EMOJI, torch_dtype=DTYPE)
    pipe.set_progress_bar_config(disable=True)
    encoded = pipe.encode_prompt(["a picture"] * 4, True, negative_prompt="", max_sequence_length=24)
    names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
    return lambda: pipe(prompt=None, negative_prompt=None, **dict(zip(names, encoded)), num_inference_steps=10,
                        guidance_scale=4.5, output_type="pt", use_resolution_binning=False)


def least(found, key, times):
    found[key] = min(times) if key not in found else min(found[key], min(times))


def show(key, them, us):
    print(f"{key[0]:<16} {key[1]:<22} {them[key]:>10.2f} {us[key]:>10.2f} {us[key] / them[key]:>6.2f}", flush=True)


def main():
    print(f"{ARGS.threads} threads, torch {torch.__version__} in {ARGS.precision}, diffusers {d.__version__}, fastest of {ARGS.rounds} rounds, ms\n")
    us, them = {}, {}
    calls = blocks() if "blocks" in ARGS.parts else {}
    whole = pipeline() if "pipeline" in ARGS.parts else None
    print(f"{'model':<16} {'block':<22} {'PyTorch':>10} {'evocache':>10} {'ratio':>6}", flush=True)
    for key, call in ((k, c) for k, c in calls.items() if ARGS.model in k[0]):
        for _ in range(ARGS.rounds):
            least(them, key, clocked(call))
            rows = [r for r in ours("blocks", "--model", key[0], "--repeats", str(RUNS))["rows"] if r["block"] == key[1]]
            # A block's time is the sum of its components in one run.
            least(us, key, [sum(run) for run in zip(*(r["ms"] for r in rows))])
        show(key, them, us)
    if whole:
        key = ("emoji pipeline", "10 steps, per picture")
        for _ in range(ARGS.rounds):
            least(them, key, [t / 4 for t in clocked(whole)])
            rows = ours("bench", "--model", EMOJI, "--batch", "4", "--steps", "10", "--repeats", "1")["schedules"]
            least(us, key, [t / 1e3 for r in rows for t in r["baseline_latency_us"]])
        show(key, them, us)


main()
