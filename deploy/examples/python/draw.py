"""Draw a picture with diffusers as a schedule in ECAD's JSON says, by the hooks of cached_pixart.py.

    pip install torch diffusers transformers accelerate sentencepiece
    evocache best SEARCH --min-quality-ratio 98% --out best.ecad.json --format ecad
    python draw.py MODEL best.ecad.json --prompt "an owl on a white background" --seed 1 --guidance 3 --out owl.png

`evocache best` tells what ECAD's format cannot say of a schedule: pass it on as --timesteps and --solver-order.
--like PICTURE compares with what `evocache-worker generate` drew with the same arguments, and fails if it is another picture.
"""
import argparse, json, sys
from types import SimpleNamespace
import numpy
from PIL import Image
from cached_pixart import COMPONENTS, CachedPixArt


def read(path, blocks):
    """Steps, and per step and slot whether to compute it."""
    file = json.load(open(path))["cache_schedule"]
    if file["num_blocks"] != blocks:
        sys.exit(f"error: '{path}' is for {file['num_blocks']} blocks, the model has {blocks}")
    rows = [file["schedule"][f"{step:03}"] for step in range(file["num_inference_steps"])]
    return len(rows), [[row[str(block)][name] for block in range(blocks) for name in COMPONENTS] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("schedule")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=4.5)
    parser.add_argument("--timesteps", type=lambda text: [int(t) for t in text.split(",")])
    parser.add_argument("--solver-order", type=int)
    parser.add_argument("--out", required=True)
    parser.add_argument("--like")
    args = parser.parse_args()
    model = CachedPixArt(args.model)
    steps, compute = read(args.schedule, len(model.blocks))
    if args.solver_order:
        scheduler = model.pipe.scheduler
        model.pipe.scheduler = type(scheduler).from_config(scheduler.config, solver_order=args.solver_order)
    sampling = SimpleNamespace(negative_prompt=args.negative_prompt, guidance_scale=args.guidance)
    images, seconds = model.draw(SimpleNamespace(sampling=sampling), [SimpleNamespace(text=args.prompt, seed=args.seed)], steps,
                                 compute, args.timesteps)
    processor = model.pipe.image_processor
    (picture,) = processor.numpy_to_pil(processor.pt_to_numpy(images))
    picture.save(args.out)
    print(f"{args.out}: {steps} steps, {sum(map(sum, compute))} slots computed, {seconds:.2f} s")
    if args.like:
        difference = numpy.abs(numpy.asarray(picture, float) - numpy.asarray(Image.open(args.like).convert("RGB"), float))
        print(f"beside {args.like}: mean difference {difference.mean():.4f}, largest {difference.max():.0f} of 255")
        if difference.mean() > 0.5:
            sys.exit("error: it is another picture")


main()
