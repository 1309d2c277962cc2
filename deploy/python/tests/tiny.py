"""Tiny pipelines with random weights for the CPU: those of the worker's fixtures, and others made here that need no
text encoder and no decoder. A `Case` is a pipeline and how to call it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import diffusers as d
import torch
from conftest import ROOT
from safetensors import safe_open

FIXTURES = ROOT / "worker/tests/fixtures"
FOLDERS = ("sigma", "pixart1024", "dit", "flux", "schnell", "sd3", "sd35")


@dataclass(frozen=True)
class Case:
    pipe: Any
    arguments: Mapping[str, Any]
    steps: int
    seeds: tuple[int, ...]

    def run(self, **settings: Any) -> torch.Tensor:
        """The pictures, or the final latents where there is no decoder."""
        generator = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        given = {"num_inference_steps": self.steps, **self.arguments, **settings}
        with torch.no_grad():
            output = self.pipe(generator=generator if len(generator) > 1 else generator[0], return_dict=False, **given)[
                0
            ]
        if isinstance(output, list):
            output = torch.stack(output)
        return torch.as_tensor(output).clone()


def golden(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What diffusers gave for a fixture: how it was called, and its tensors."""
    with safe_open(FIXTURES / name / "golden.safetensors", "pt") as file:
        return json.loads(file.metadata()["about"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def fixture(name: str) -> Case:
    """A pipeline of the worker's tests."""
    about, _ = golden(name)
    pipe = d.DiffusionPipeline.from_pretrained(
        FIXTURES / name,
        dtype=torch.float32,
        low_cpu_mem_usage=False,
        local_files_only=True,
        **({"text_encoder_3": None, "tokenizer_3": None} if name == "sd3" else {}),
    )
    arguments: dict[str, Any] = {"guidance_scale": about["guidance"], "output_type": "pt"}
    if name == "dit":
        arguments["class_labels"] = [207, 1]
    else:
        arguments |= {"prompt": about["prompts"], "height": about["height"], "width": about["width"]}
        arguments["max_sequence_length"] = 256 if name == "sd3" else 24
    if name in ("sigma", "pixart1024"):
        arguments |= {"use_resolution_binning": False, "clean_caption": False, "negative_prompt": about["negative"]}
    if name.startswith("sd3"):
        arguments["negative_prompt"] = [about["negative"]] * 2
    return Case(_quiet(pipe), arguments, about["steps"], tuple(about["seeds"]))


def _flow() -> Any:
    return d.FlowMatchEulerDiscreteScheduler(shift=3.0)


def _random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _wake(model: torch.nn.Module) -> Any:
    """Moves weights that begin at zero, so that every module matters."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def z_image(**arguments: Any) -> Case:
    torch.manual_seed(0)
    transformer = d.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 64, 64],
    )
    pipe = d.ZImagePipeline(_flow(), None, None, None, _wake(transformer))
    given = {
        "prompt_embeds": [_random((5, 16), 1), _random((9, 16), 2)],
        "negative_prompt_embeds": [_random((3, 16), 3), _random((4, 16), 4)],
        "height": 64,
        "width": 64,
        "guidance_scale": 4.0,
        "output_type": "latent",
    }
    return Case(_quiet(pipe), given | arguments, 6, (7, 8))


def flux2() -> Case:
    torch.manual_seed(0)
    transformer = d.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae = d.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    pipe = d.Flux2KleinPipeline(_flow(), vae, None, None, _wake(transformer))
    given = {
        "prompt_embeds": _random((1, 6, 24), 1),
        "negative_prompt_embeds": _random((1, 4, 24), 2),
        "height": 64,
        "width": 64,
        "guidance_scale": 3.0,
        "output_type": "latent",
    }
    return Case(_quiet(pipe), given, 5, (7,))


def _wan_transformer(seed: int) -> Any:
    torch.manual_seed(seed)
    return _wake(
        d.WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        )
    )


def wan(two: bool) -> Case:
    """Wan 2.1, or 2.2 with a transformer for each half of the steps; guidance in two calls a step."""
    pipe = d.WanPipeline(
        None, None, None, _flow(), _wan_transformer(0), _wan_transformer(1) if two else None, 0.7 if two else None
    )
    given = {
        "prompt_embeds": _random((1, 6, 16), 1),
        "negative_prompt_embeds": _random((1, 6, 16), 2),
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "guidance_scale": 3.0,
        "output_type": "latent",
    }
    return Case(_quiet(pipe), given, 6, (7,))


MAKERS: dict[str, Callable[[], Case]] = {
    **{name: (lambda name=name: fixture(name)) for name in FOLDERS},  # type: ignore[misc]
    "z_image": z_image,
    "flux2": flux2,
    "wan": lambda: wan(False),
    "wan22": lambda: wan(True),
}


@cache
def case(name: str) -> Case:
    """A case that tests share: they detach what they attach."""
    return MAKERS[name]()
