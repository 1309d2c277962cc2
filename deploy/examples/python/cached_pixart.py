"""A PixArt pipeline of diffusers that runs caching schedules: the modules `attn1`, `attn2` and `ff` of every block are
wrapped, and what is stored is their raw output, before gate and residual. Knows nothing of gRPC.
"""
import hashlib, io, math, pathlib, threading, time
import torch
from diffusers import PixArtAlphaPipeline
from torch.utils.flop_counter import FlopCounterMode

COMPONENTS = ("attn1", "attn2", "ff")


class Cancelled(Exception):
    pass


class CachedPixArt:
    def __init__(self, folder):
        self.pipe = PixArtAlphaPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.blocks = self.pipe.transformer.transformer_blocks
        self.slots = [(b, c) for b in range(len(self.blocks)) for c in COMPONENTS]
        self.cancel = threading.Event()
        self.step, self.compute, self.last_read, self.cache, self.held, self.peak = 0, None, {}, {}, 0, 0
        for slot, (b, c) in enumerate(self.slots):
            self.wrap(slot, getattr(self.blocks[b], c))
        self.pipe.transformer.register_forward_pre_hook(self.check)
        self.pipe.transformer.register_forward_hook(lambda *_: setattr(self, "step", self.step + 1))
        digest = hashlib.sha256()
        for file in sorted(pathlib.Path(folder).glob("*/*.safetensors")):
            digest.update(file.read_bytes())
        self.fingerprint = "diffusers-" + digest.hexdigest()

    def check(self, *_):
        if self.cancel.is_set():
            raise Cancelled

    def wrap(self, slot, module):
        forward = module.forward

        def cached(*args, **kwargs):
            if self.compute is None:
                return forward(*args, **kwargs)
            compute = self.compute[self.step][slot]
            if compute:
                self.cache[slot] = (forward(*args, **kwargs), self.step)
            out, made = self.cache[slot]
            size = out.element_size() * out.nelement()
            if compute and (made, slot) in self.last_read:
                self.held += size
                self.peak = max(self.peak, self.held)
            if self.last_read.get((made, slot), made) == self.step:  # nobody reads it again
                self.held -= size if (made, slot) in self.last_read else 0
                del self.cache[slot]
            return out

        module.forward = cached

    @torch.no_grad()
    def draw(self, calibration, prompts, steps, compute=None, timesteps=None):
        """Pictures [n, 3, h, w] in 0..1 and seconds, text encoding excluded. `timesteps`: another grid than the scheduler's own."""
        sampling, pipe = calibration.sampling, self.pipe
        channels, side = pipe.transformer.config.in_channels, pipe.transformer.config.sample_size
        noise = [torch.randn(channels, side, side, generator=torch.Generator("cpu").manual_seed(p.seed)) for p in prompts]
        text = pipe.encode_prompt([p.text for p in prompts], negative_prompt=[sampling.negative_prompt] * len(prompts),
                                  do_classifier_free_guidance=True, max_sequence_length=min(120, pipe.tokenizer.model_max_length))
        keys = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        self.step, self.compute, self.cache, self.held, self.peak, self.last_read = 0, compute, {}, 0, 0, {}
        for slot in range(len(self.slots)) if compute else ():
            made = 0
            for step in range(steps):
                if compute[step][slot]:
                    made = step
                else:
                    self.last_read[made, slot] = step
        start = time.perf_counter()
        images = pipe(**dict(zip(keys, text)), negative_prompt=None, num_inference_steps=steps, timesteps=timesteps, latents=torch.stack(noise),
                      guidance_scale=sampling.guidance_scale, use_resolution_binning=False, clean_caption=False,
                      height=side * pipe.vae_scale_factor, width=side * pipe.vae_scale_factor, output_type="pt").images
        return images, time.perf_counter() - start

    def prepare(self, calibration):
        """The uncached pictures, and the multiply-accumulates of the whole and of each slot."""
        steps = max(calibration.sampling.steps)
        with FlopCounterMode(display=False) as flops:
            self.draw(calibration, calibration.prompts[:1], steps)
        counts = {k: sum(v.values()) // 2 for k, v in flops.get_flop_counts().items()}
        name = f"{type(self.pipe.transformer).__name__}.transformer_blocks"
        self.slot_macs = [counts.get(f"{name}.{b}.{c}", 0) // steps for b, c in self.slots]
        self.macs = {steps: flops.get_total_flops() // 2}
        for fewer in calibration.sampling.steps:
            self.macs[fewer] = self.macs[steps] * fewer // steps
        self.baseline = self.draw(calibration, calibration.prompts, steps)[0]

    def evaluate(self, calibration, schedule, count):
        """What the schedule measures on the first `count` prompts."""
        bits, slots, batch = schedule.decisions, len(self.slots), calibration.measurement.batch
        compute = [[not bits[i // 4] >> 2 * (i % 4) & 3 for i in range(s * slots, (s + 1) * slots)] for s in range(schedule.steps)]
        begun, pictures, latency, baseline, peak = time.perf_counter(), [], [], [], 0
        groups = [calibration.prompts[i:min(i + batch, count)] for i in range(0, count, batch)]
        for i, group in enumerate(groups):
            if i < calibration.measurement.repeats:  # uncached runs between the candidate's own
                baseline.append(self.draw(calibration, group, max(calibration.sampling.steps))[1] * 1e6 / len(group))
            images, seconds = self.draw(calibration, group, schedule.steps, compute)
            latency.append(seconds * 1e6 / len(group))
            pictures.append(images)
            peak = max(peak, self.peak // len(group))
        pictures = torch.cat(pictures)
        error = ((pictures - self.baseline[:count]) ** 2).mean(dim=(1, 2, 3))
        psnr = [min(100.0, -10 * math.log10(max(e, 1e-10))) for e in error.tolist()]
        saved = sum(self.slot_macs[slot] for row in compute for slot, run in enumerate(row) if not run)
        thumbnails = []
        for image in self.pipe.image_processor.pt_to_numpy(pictures[:calibration.measurement.thumbnails]):
            file = io.BytesIO()
            self.pipe.image_processor.numpy_to_pil(image)[0].save(file, "PNG")
            thumbnails.append(file.getvalue())
        return dict(psnr=psnr, latency_us=latency, baseline_latency_us=baseline, macs=self.macs[schedule.steps] - saved,
                    baseline_macs=max(self.macs.values()), peak_cache_bytes=peak, thumbnails=thumbnails,
                    seconds=time.perf_counter() - begun)
