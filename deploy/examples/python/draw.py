"""Draw a picture with diffusers as a schedule says, and compare it with the one that `evocache-worker generate` drew.

pip install './deploy/python[diffusers]' sentencepiece
evocache best SEARCH --min-quality-ratio 98% --out best.json
python draw.py MODEL best.json --prompt "an owl on a white background" --seed 1 --guidance 3 --out owl.png
"""

import argparse
import sys

import evocache
import numpy
import torch
from diffusers import DiffusionPipeline
from PIL import Image


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("schedule")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance", type=float, default=4.5)
    parser.add_argument("--out", required=True)
    parser.add_argument("--like", help="fail if the picture is another one than this file")
    args = parser.parse_args()
    pipe = DiffusionPipeline.from_pretrained(args.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    attachment = evocache.attach(pipe, args.schedule)
    picture = pipe(
        args.prompt,
        negative_prompt="",
        guidance_scale=args.guidance,
        **attachment.settings,
        generator=torch.Generator().manual_seed(args.seed),
        use_resolution_binning=False,
        clean_caption=False,
        max_sequence_length=min(120, pipe.tokenizer.model_max_length),
    ).images[0]
    picture.save(args.out)
    print(f"{args.out}: {attachment.counts}")
    if args.like:
        difference = numpy.abs(
            numpy.asarray(picture, float) - numpy.asarray(Image.open(args.like).convert("RGB"), float)
        )
        print(f"beside {args.like}: mean difference {difference.mean():.4f}, largest {difference.max():.0f} of 255")
        if difference.mean() > 0.5:
            sys.exit("error: it is another picture")


main()
