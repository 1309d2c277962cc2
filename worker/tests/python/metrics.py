"""Metrics of the official Python packages on pictures made here, with random weights. `python metrics.py tiny [NAME …]` makes
tests/fixtures/metrics anew; `python metrics.py true FOLDER [NAME …]` makes the same at the sizes of the published weights (see
true_metrics.sh). Where a network has but one size, its weights are not stored: a recipe tells how to draw them from a seed, as
torch does. pip install -r requirements-metrics.txt"""
import json, os, shutil, sys
import numpy as np
import torch
from safetensors.torch import save_file, save_model

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURES = os.path.join(HERE, "..", "fixtures", "metrics")


# --- pictures and weights ---------------------------------------------------------------------------------------------

def pictures(count, height, width, seed=0):
    """Smooth pictures with some grain, as bytes, [count, 3, height, width]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    x = 0.5 + 0.25 * smooth + 0.03 * torch.randn(smooth.shape, generator=generator)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def disturbed(x, seed=1):
    """The same pictures, moved as caching moves them: a little everywhere, more in places."""
    other = pictures(*([len(x)] + list(x.shape[2:])), seed=seed).float()
    weight = torch.linspace(0.05, 0.6, x.shape[3])
    return (x.float() * (1 - weight) + other * weight).round().to(torch.uint8)


def recipe(name, shape):
    """Mean and scale of the normal values of a tensor, so that nothing vanishes or overflows."""
    if name.startswith("lin"):
        return 0.1, 0.03
    if len(shape) >= 2:
        return 0.0, (2.0 / (np.prod(shape[1:]))) ** 0.5
    return (1.0, 0.1) if name.endswith(("bn.weight", "running_var")) else (0.0, 0.1)


def draw(model, but=()):
    """Fills a model by the recipe, but tensors that begin so; gives [name, shape, mean, scale], the seed is the place."""
    rows, seen = [], set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.data_ptr() in seen or not tensor.is_floating_point() or name.startswith(but):
                continue
            seen.add(tensor.data_ptr())
            mean, scale = recipe(name, tensor.shape)
            values = torch.randn(tensor.numel(), generator=torch.Generator().manual_seed(len(rows)))
            tensor.copy_((mean + scale * values).reshape(tensor.shape))
            rows.append([name, list(tensor.shape), float(mean), float(scale)])
    return rows


# --- metrics: each gives what it measured, on what, and where the weights are ------------------------------------------

def ssim(folder, true):
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure
    uncached = pictures(3, 300, 260) if true else pictures(3, 40, 48)
    x = disturbed(uncached)
    a, b = (y.double() / 255 for y in (x, uncached))
    values = [structural_similarity(p.numpy(), q.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=1.0, channel_axis=0) for p, q in zip(a, b)]
    # torchmetrics also counts the margin, over pictures that it mirrors there.
    _, whole = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    inside = whole[..., 5:-5, 5:-5].mean((1, 2, 3))
    assert (inside - torch.tensor(values)).abs().max() < 1e-6, "the two packages differ"
    return dict(metric="ssim", kind="ssim", pictures=x, uncached=uncached, values=values)


def lpips(net):
    def make(folder, true):
        import lpips as official
        model = official.LPIPS(net=net, pnet_rand=True, verbose=False)
        rows = draw(model, but=("scaling",))
        uncached = pictures(2, 256, 200) if true else pictures(2, 64, 72)
        x = disturbed(uncached)
        values = model(x.float() / 255, uncached.float() / 255, normalize=True).flatten()
        assert model(x.float() / 255, x.float() / 255, normalize=True).abs().max() == 0
        if true:
            save_model(model, f"{folder}/weights.safetensors")
        return dict(metric=f"lpips_{net}", kind="lpips", path="weights.safetensors", recipe=rows, pictures=x,
                    uncached=uncached, values=values)
    return make


METRICS = dict(ssim=ssim, lpips_alex=lpips("alex"), lpips_vgg=lpips("vgg"))


@torch.no_grad()
def make(name, folder, true):
    torch.manual_seed(0)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    made = METRICS[name](folder, true)
    tensors = {k: made.pop(k) for k in ("pictures", "uncached") if k in made}
    tensors["values"] = torch.as_tensor(made.pop("values")).double().flatten()
    if true:
        made.pop("recipe", None)
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{folder}/golden.safetensors",
              metadata=dict(about=json.dumps(made)))
    print(f"{name}: {[round(v, 5) for v in tensors['values'].tolist()]}")
    assert torch.isfinite(tensors["values"]).all()


if __name__ == "__main__":
    if sys.argv[1:2] == ["tiny"]:
        for name in sys.argv[2:] or METRICS:
            make(name, os.path.join(FIXTURES, name), False)
    elif sys.argv[1:2] == ["true"] and len(sys.argv) > 2:
        for name in sys.argv[3:] or METRICS:
            make(name, os.path.join(sys.argv[2], name), True)
    else:
        sys.exit(__doc__)
