"""Whole pipelines of diffusers with random weights, and the results of diffusers for them: text encoders, every
component of one block of each kind, the transformer at two steps, the decoder, and latents after every step with and
without a caching schedule. `python pipelines.py tiny` writes tests/fixtures; `python pipelines.py true FOLDER [NAME …]`
does so at true widths, with as few layers as include every kind of block (see true_widths.sh).
pip install torch diffusers transformers safetensors accelerate"""
import json, os, random, shutil, sys
import torch
import diffusers as d
import transformers as t
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "fixtures")
MODELS = os.path.join(HERE, "..", "..", "models")
LABELS = {0: "tench, Tinca tinca", 1: "goldfish", 207: "golden retriever"}
TOKENS = 24  # of T5; the pipelines' defaults would make large files
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


# --- parts -----------------------------------------------------------------------------------------------------------

def clip_tokenizer(folder, pad, length):
    """A BPE over bytes with a few merges, in the files that FLUX and SD3 have: vocab.json and merges.txt."""
    byte = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    extra = [i for i in range(256) if i not in byte]
    letters = [chr(b) for b in byte] + [chr(256 + i) for i in range(len(extra))]
    merges = ["c a", "ca t</w>", "o n</w>", "r e", "re d</w>", "a n", "an d</w>", "t h", "th e</w>"]
    vocab = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in merges] + [BOS, EOS]
    os.makedirs(folder)
    json.dump({x: i for i, x in enumerate(vocab)}, open(f"{folder}/vocab.json", "w"), ensure_ascii=False)
    open(f"{folder}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    json.dump(dict(tokenizer_class="CLIPTokenizer", bos_token=BOS, eos_token=EOS, unk_token=EOS, pad_token=pad,
                   model_max_length=length), open(f"{folder}/tokenizer_config.json", "w"), indent=1)
    return t.CLIPTokenizer.from_pretrained(folder), len(vocab)


def clip_encoder(vocab, width, layers, heads, inner, length, projection=None, act="quick_gelu"):
    config = t.CLIPTextConfig(vocab_size=vocab, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
                              num_attention_heads=heads, max_position_embeddings=length, hidden_act=act,
                              projection_dim=projection or width, bos_token_id=vocab - 2, eos_token_id=2, pad_token_id=1)
    return (t.CLIPTextModelWithProjection if projection else t.CLIPTextModel)(config)


def t5(vocab, width, layers, heads, kv, inner):
    return t.T5EncoderModel(t.T5Config(vocab_size=vocab, d_model=width, d_kv=kv, d_ff=inner, num_layers=layers,
                                       num_heads=heads, feed_forward_proj="gated-gelu"))


def vae(latent, channels, groups, layers=1, quant=False, **more):
    n = len(channels)
    return d.AutoencoderKL(block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * n, latent_channels=latent,
                           up_block_types=("UpDecoderBlock2D",) * n, layers_per_block=layers, norm_num_groups=groups,
                           use_quant_conv=quant, use_post_quant_conv=quant, sample_size=64 if n == 4 else 16, **more)


# --- families: each returns a pipeline and how to call it -------------------------------------------------------------

TINY_TEXT = dict(clip=(12, 2, 2, 20), clip_g=(16, 2, 2, 24), t5=(32, 2, 2, 8, 40), length=16, vae=((8, 16), 4, 1))
# The true widths of CLIP-L, OpenCLIP-G, T5-XXL and the VAE of FLUX, with few layers, because blocks repeat.
TRUE_TEXT = dict(clip=(768, 2, 12, 3072), clip_g=(1280, 2, 20, 5120), t5=(4096, 1, 64, 64, 10240), length=77,
                 vae=((128, 256, 512, 512), 32, 2))


def flux(tmp, true, schnell):
    c = TRUE_TEXT if true else TINY_TEXT
    tokenizer, vocab = clip_tokenizer(f"{tmp}/tokenizer", EOS, c["length"])
    width, layers, heads, inner = c["clip"]
    sizes = dict(num_attention_heads=24, attention_head_dim=128, joint_attention_dim=4096, in_channels=64,
                 axes_dims_rope=(16, 56, 56)) if true else dict(num_attention_heads=2, attention_head_dim=16,
                 joint_attention_dim=32, in_channels=64, axes_dims_rope=(4, 6, 6))
    scheduler = d.FlowMatchEulerDiscreteScheduler(shift=1.0) if schnell else d.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
    channels, groups, per_block = c["vae"]
    pipe = d.FluxPipeline(
        scheduler=scheduler, tokenizer=tokenizer, text_encoder=clip_encoder(vocab, width, layers, heads, inner, c["length"]),
        tokenizer_2=t.AutoTokenizer.from_pretrained(f"{MODELS}/emoji/tokenizer"), text_encoder_2=t5(455, *c["t5"]),
        vae=vae(16, channels, groups, per_block, scaling_factor=0.3611, shift_factor=0.1159),
        transformer=d.FluxTransformer2DModel(num_layers=1 if true else 2, num_single_layers=1 if true else 2,
                                             pooled_projection_dim=width, guidance_embeds=not schnell, **sizes))
    slots = [(f"double.{i}", b, c) for i, b in enumerate(pipe.transformer.transformer_blocks) for c in ("attn", "ff", "ff_context")]
    slots += [(f"single.{i}", b, c) for i, b in enumerate(pipe.transformer.single_transformer_blocks)
              for c in ("attn", "proj_mlp", "proj_out")]
    size = (96, 64) if true else (24, 16)
    unpack = lambda x: pipe._unpack_latents(x, *size, pipe.vae_scale_factor)
    join = lambda out: torch.cat([out[1], out[0]], 1)  # the text stream comes first
    return dict(pipe=pipe, slots=slots, size=size, unpack=unpack, join=join, guided=False,
                prompts=["a red cat and the owl", "Two Cats!  on a table"], negative="", steps=4, guidance=1.0 if schnell else 3.5,
                call=lambda **k: pipe(max_sequence_length=TOKENS, **k))


def dit(tmp, true):
    c = TRUE_TEXT if true else TINY_TEXT
    channels, groups, per_block = c["vae"]
    sizes = dict(num_attention_heads=16, attention_head_dim=72, sample_size=16) if true else dict(
        num_attention_heads=2, attention_head_dim=8, sample_size=8)
    pipe = d.DiTPipeline(
        transformer=d.DiTTransformer2DModel(in_channels=4, out_channels=8, num_layers=2, **sizes),
        vae=vae(4, channels, groups, per_block, quant=True, scaling_factor=0.18215),
        scheduler=d.DDIMScheduler(clip_sample=False), id2label=LABELS)
    slots = [(f"block.{i}", b, c) for i, b in enumerate(pipe.transformer.transformer_blocks) for c in ("attn1", "ff")]
    side = sizes["sample_size"] * 2 ** (len(channels) - 1)
    return dict(pipe=pipe, slots=slots, size=(side, side), unpack=lambda x: x, join=None, guided=True, conditional_first=True,
                prompts=["Golden Retriever", "1"], labels=[207, 1], negative="", steps=5, guidance=4.0,
                call=lambda **k: pipe(**k))


def sd3(tmp, true, dual, with_t5):
    c = TRUE_TEXT if true else TINY_TEXT
    tokenizer, vocab = clip_tokenizer(f"{tmp}/tokenizer", EOS, c["length"])
    tokenizer_2, _ = clip_tokenizer(f"{tmp}/tokenizer_2", "!", c["length"])
    (w, l, h, inner), (w2, l2, h2, inner2) = c["clip"], c["clip_g"]
    channels, groups, per_block = c["vae"]
    sizes = dict(num_attention_heads=24, attention_head_dim=64, caption_projection_dim=1536, joint_attention_dim=4096,
                 sample_size=128, pos_embed_max_size=384 if dual else 192) if true else dict(
                 num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16, joint_attention_dim=32, sample_size=8,
                 pos_embed_max_size=12)
    pipe = d.StableDiffusion3Pipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=3.0), tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        text_encoder=clip_encoder(vocab, w, l, h, inner, c["length"], w),
        text_encoder_2=clip_encoder(vocab, w2, l2, h2, inner2, c["length"], w2, "gelu"),
        tokenizer_3=t.AutoTokenizer.from_pretrained(f"{MODELS}/emoji/tokenizer") if with_t5 else None,
        text_encoder_3=t5(455, *c["t5"]) if with_t5 else None,
        vae=vae(16, channels, groups, per_block, scaling_factor=1.5305, shift_factor=0.0609),
        transformer=d.SD3Transformer2DModel(num_layers=3, in_channels=16, out_channels=16, pooled_projection_dim=w + w2,
                                            dual_attention_layers=(0,) if dual else (), qk_norm="rms_norm" if dual else None,
                                            **sizes))
    slots, last = [], len(pipe.transformer.transformer_blocks) - 1
    for i, b in enumerate(pipe.transformer.transformer_blocks):
        kind = "dual.0" if dual and i == 0 else "last.0" if i == last else f"joint.{i - dual}"
        names = ["attn"] + ["attn2"] * (kind == "dual.0") + ["ff"] + ["ff_context"] * (i != last)
        slots += [(kind, b, n) for n in names]
    join = lambda out: torch.cat(out, 1)
    return dict(pipe=pipe, slots=slots, size=(96, 64) if true else (24, 16), unpack=lambda x: x, join=join, guided=True,
                prompts=["a red cat and the owl", "Two Cats!  on a table"], negative="the dog", steps=4, guidance=5.0,
                call=lambda **k: pipe(max_sequence_length=TOKENS if with_t5 else 256, **k))


def pixart(tmp, true, sigma):
    """α at 1024² (micro-conditions: sample_size 128 turns them on) or Σ."""
    c = TRUE_TEXT if true else TINY_TEXT
    channels, groups, per_block = c["vae"]
    sizes = dict(num_attention_heads=16, attention_head_dim=72, cross_attention_dim=1152) if true else dict(
        num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24)
    transformer = d.PixArtTransformer2DModel(
        in_channels=4, out_channels=8, num_layers=2, caption_channels=c["t5"][0], sample_size=128, interpolation_scale=2,
        use_additional_conditions=not sigma, **sizes)
    pipe = (d.PixArtSigmaPipeline if sigma else d.PixArtAlphaPipeline)(
        tokenizer=t.AutoTokenizer.from_pretrained(f"{MODELS}/emoji/tokenizer"), text_encoder=t5(455, *c["t5"]),
        vae=vae(4, channels, groups, per_block, quant=True, scaling_factor=0.13025 if sigma else 0.18215),
        transformer=transformer, scheduler=d.DPMSolverMultistepScheduler())
    slots = [(f"block.{i}", b, c) for i, b in enumerate(transformer.transformer_blocks) for c in ("attn1", "attn2", "ff")]
    call = dict(max_sequence_length=TOKENS, use_resolution_binning=False, clean_caption=False)
    return dict(pipe=pipe, slots=slots, size=(96, 64) if true else (24, 16), unpack=lambda x: x, join=None, guided=True,
                prompts=["a red cat and the owl", "two cats on a table"], negative="the dog", steps=4, guidance=4.5,
                call=lambda **k: pipe(**call, **{**k, "negative_prompt": k["negative_prompt"][0]}))


FAMILIES = {
    "pixart1024": lambda tmp, true: pixart(tmp, true, False),
    "sigma": lambda tmp, true: pixart(tmp, true, True),
    "flux": lambda tmp, true: flux(tmp, true, False),
    "schnell": lambda tmp, true: flux(tmp, true, True),
    "dit": dit,
    "sd3": lambda tmp, true: sd3(tmp, true, False, False),
    "sd35": lambda tmp, true: sd3(tmp, true, True, True),
}


# --- caching, by itself: deploy/python is tested against what this makes ----------------------------------------------

class Caching:
    """Wraps the modules of all slots. `decisions[step][slot]` is 0 to compute, 1 to reuse, 2 to forecast from the last
    two computed outputs; without decisions it only records the outputs of step 0."""

    def __init__(self, family):
        self.step, self.decisions, self.history, self.first = -1, None, {}, {}
        last = [block.startswith("last") for block, _, _ in family["slots"]]
        # The text output of SD3's last block is not used.
        self.join = [(lambda out: out[0]) if is_last else family["join"] for is_last in last]
        for slot, (_, block, component) in enumerate(family["slots"]):
            self.wrap(slot, getattr(block, component))
        family["pipe"].transformer.register_forward_pre_hook(lambda *_: setattr(self, "step", self.step + 1))

    def begin(self, decisions):
        self.step, self.decisions, self.history = -1, decisions, {}

    def wrap(self, slot, module):
        forward = module.forward

        def cached(*args, **kwargs):
            decision = self.decisions[self.step][slot] if self.decisions else 0
            done = self.history.setdefault(slot, [])
            if decision == 0:
                out = forward(*args, **kwargs)
                done.append((self.step, out))
                if not self.decisions and self.step == 0:
                    self.first[slot] = self.join[slot](out) if isinstance(out, tuple) else out
                return out
            if decision == 1 or len(done) < 2:
                return done[-1][1]
            (t0, y0), (t1, y1) = done[-2:]
            go = lambda a, b: b + (b - a) * ((self.step - t1) / (t1 - t0))
            return tuple(go(a, b) for a, b in zip(y0, y1)) if isinstance(y1, tuple) else go(y0, y1)

        module.forward = cached


def roughen(model, generator):
    """Adds noise to all weights, so that none stays at its initial zero or one, and rounds them to half precision."""
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_((p + (0.1 if p.dim() < 2 else 0.7 / p[0].numel() ** 0.5) * noise).half().float())
        for name, b in model.named_buffers():
            if name in model.state_dict() and b.is_floating_point():
                b.copy_(b.half().float())
    return model.eval()


def amend(folder, **fields):
    index = json.load(open(f"{folder}/model_index.json"))
    json.dump(index | fields, open(f"{folder}/model_index.json", "w"), indent=2)


def save(pipe, folder, tmp):
    shutil.rmtree(folder, ignore_errors=True)
    pipe.save_pretrained(folder, max_shard_size="2GB")
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            file = f"{folder}/{name}/" + ("model" if "text" in name else "diffusion_pytorch_model") + ".safetensors"
            files = [file] if os.path.exists(file) else [f"{folder}/{name}/{x}" for x in os.listdir(f"{folder}/{name}")
                                                         if x.endswith(".safetensors")]
            for file in files:
                rename = lambda k: k if k.startswith("text_") else "text_model." + k  # as on the hub
                keep = lambda k: name != "vae" or k.startswith(("decoder.", "post_quant_conv."))
                weights = {k: v.half().contiguous() for k, v in load_file(file).items() if keep(k)}
                if name == "text_encoder" and "CLIP" in type(part).__name__:
                    weights = {rename(k): v for k, v in weights.items()}
                save_file(weights, file, metadata=dict(format="pt"))
        if name == "transformer" and hasattr(pipe, "labels"):  # on the hub added by hand; diffusers only reads them
            amend(folder, id2label=LABELS)
        if name.startswith("text_encoder") and "T5" in type(part).__name__:
            amend(folder, _max_sequence_length=TOKENS)
        if name.startswith("tokenizer") and os.path.exists(f"{tmp}/{name}/merges.txt"):
            shutil.rmtree(f"{folder}/{name}")
            shutil.copytree(f"{tmp}/{name}", f"{folder}/{name}")


@torch.no_grad()
def make(name, folder, true):
    torch.manual_seed(0)
    tmp = folder + ".tmp"
    shutil.rmtree(tmp, ignore_errors=True)
    family = FAMILIES[name](tmp, true)
    pipe, steps, seeds = family["pipe"], family["steps"], [7, 8]
    generator = torch.Generator().manual_seed(1)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            roughen(part.float(), generator)
    save(pipe, folder, tmp)
    pipe.set_progress_bar_config(disable=True)
    caching, out = Caching(family), {}
    unpack, guided = family["unpack"], family["guided"]
    seen, inner_step, inner = [], pipe.scheduler.step, pipe.transformer.forward
    # Guided batches are stored with the unconditional half first.
    order = (lambda x: torch.cat([x[len(x) // 2:], x[: len(x) // 2]])) if family.get("conditional_first") else (lambda x: x)
    half = (lambda x: x[: len(seeds)])

    def step(output, timestep, sample, *args, **kwargs):
        result = inner_step(output, timestep, sample, *args, **kwargs)
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        seen.append((half(unpack(sample)), half(unpack(after))))
        return result

    outputs, arguments = [], {}

    def transformer(*args, **kwargs):
        result = inner(*args, **kwargs)
        arguments.update(kwargs)
        outputs.append(order(unpack(result[0] if isinstance(result, tuple) else result.sample)))
        return result

    pipe.scheduler.step, pipe.transformer.forward = step, transformer
    call = dict(num_inference_steps=steps, guidance_scale=family["guidance"],
                generator=[torch.Generator().manual_seed(s) for s in seeds])
    if name != "dit":
        call.update(prompt=family["prompts"], height=family["size"][0], width=family["size"][1], output_type="pt")
        if guided:
            call["negative_prompt"] = [family["negative"]] * 2
    else:
        call.update(class_labels=family["labels"], output_type="pt")

    def run(decisions):
        seen.clear(), outputs.clear(), caching.begin(decisions)
        call["generator"] = [torch.Generator().manual_seed(s) for s in seeds]
        pictures = family["call"](**call)
        pictures = pictures.images if hasattr(pictures, "images") else pictures[0]
        return pictures, torch.stack([after for _, after in seen])

    out["pictures"], out["latents_by_step"] = run(None)
    out["initial_latents"] = seen[0][0]
    kinds = {}
    for slot, (block, _, component) in enumerate(family["slots"]):
        kinds.setdefault(block.split(".")[0], block)
        if kinds[block.split(".")[0]] == block:
            out[f"slot.{block}.{component}"] = order(caching.first[slot])
    for i in (0, steps // 2):
        out[f"transformer.{i}"] = outputs[i]
        out[f"latents_before.{i}"] = seen[i][0]
    for key, argument in (("embeddings", "encoder_hidden_states"), ("mask", "encoder_attention_mask"), ("pooled", "pooled_projections"), ("classes", "class_labels")):
        if arguments.get(argument) is not None:
            out[key] = order(arguments[argument])
    if "mask" in out:
        out["mask"] = out["mask"].float()
    last = out["latents_by_step"][-1]
    shift = pipe.vae.config.shift_factor or 0.0
    out["decoded"] = pipe.vae.decode(last / pipe.vae.config.scaling_factor + shift).sample
    pipe.vae.enable_tiling()
    out["decoded_in_tiles"] = pipe.vae.decode(last / pipe.vae.config.scaling_factor + shift).sample
    pipe.vae.disable_tiling()
    dice = random.Random(3)
    decisions = [[0 if s == 0 else dice.choice([0, 0, 1, 2]) for _ in family["slots"]] for s in range(steps)]
    out["cached_pictures"], out["cached_by_step"] = run(decisions)
    out["decisions"] = torch.tensor(decisions, dtype=torch.uint8)
    about = dict(prompts=family["prompts"], negative=family["negative"], seeds=seeds, steps=steps, guidance=family["guidance"],
                 height=family["size"][0], width=family["size"][1], slots=[f"{b}.{c}" for b, _, c in family["slots"]])
    # A clone is contiguous and shares no storage; safetensors requires both.
    save_file({k: v.clone().contiguous() for k, v in out.items()}, f"{folder}/golden.safetensors",
              metadata=dict(about=json.dumps(about)))
    shutil.rmtree(tmp, ignore_errors=True)
    change = (out["cached_by_step"][-1] - last).norm() / last.norm()
    print(f"{name}: latents {tuple(last.shape)} with deviation {last.std():.3f}, changed by {change:.3f} by caching")
    assert torch.isfinite(last).all() and change > 1e-3


if __name__ == "__main__":
    if sys.argv[1:2] == ["tiny"]:
        for name in sys.argv[2:] or FAMILIES:
            make(name, os.path.join(FIXTURES, name), False)
    elif sys.argv[1:2] == ["true"] and len(sys.argv) > 2:
        for name in sys.argv[3:] or FAMILIES:
            make(name, os.path.join(sys.argv[2], name), True)
    else:
        sys.exit(__doc__)
