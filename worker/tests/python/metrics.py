"""Metrics of the official Python packages on generated pictures, with random weights. `python metrics.py tiny [NAME …]`
writes tests/fixtures/metrics; `python metrics.py true FOLDER [NAME …]` does so at the sizes of the published weights
(see true_metrics.sh). Weights of a network with a fixed size are not stored: a recipe describes how to draw them from
seeds with torch's generator. pip install -r requirements-metrics.txt"""
import gzip, importlib, json, math, os, shutil, sys, types
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
    """The same pictures, changed as caching changes them: slightly everywhere, more in places."""
    other = pictures(*([len(x)] + list(x.shape[2:])), seed=seed).float()
    weight = torch.linspace(0.05, 0.6, x.shape[3])
    return (x.float() * (1 - weight) + other * weight).round().to(torch.uint8)


def recipe(name, shape):
    """Mean and scale of a tensor's normal values, chosen so that activations neither vanish nor overflow."""
    if name.startswith("lin"):
        return 0.1, 0.03
    if name == "logit_scale":
        return 4.6, 0.0
    if len(shape) >= 2:
        return 0.0, (2.0 / np.prod(shape[1:])) ** 0.5
    return (1.0, 0.1) if name.endswith(("weight", "running_var")) else (0.0, 0.1)


def draw(model, but=()):
    """Fills a model by the recipe, except for tensors with these prefixes. Returns rows [name, shape, mean, scale]; the
    seed of a tensor is the index of its row."""
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


# --- metrics: each returns its values, the pictures, and the path of the weights --------------------------------------

def ssim(folder, true):
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure
    uncached = pictures(3, 300, 260) if true else pictures(3, 40, 48)
    x = disturbed(uncached)
    a, b = (y.double() / 255 for y in (x, uncached))
    values = [structural_similarity(p.numpy(), q.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                    data_range=1.0, channel_axis=0) for p, q in zip(a, b)]
    # torchmetrics also includes the margin, which it pads with mirrored pixels.
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
        return dict(metric=f"lpips_{net}", kind="lpips", path="weights.safetensors", weights="weights.safetensors", recipe=rows, pictures=x,
                    uncached=uncached, values=values)
    return make


PROMPTS = ["a Red cat, and the owl!", "two cats on a table", "A very long prompt about the cat and the owl and the table " * 3]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def photographs(true):
    """Pictures that are not square, for metrics of single pictures."""
    x = pictures(3, 300, 261) if true else pictures(3, 48, 41)
    from PIL import Image
    return x, [Image.fromarray(y.permute(1, 2, 0).numpy()) for y in x]


def clip_merges(true):
    """CLIP's own merges: all of them, or the first few."""
    import open_clip
    with gzip.open(f"{os.path.dirname(open_clip.__file__)}/bpe_simple_vocab_16e6.txt.gz") as file:
        lines = file.read().decode().split("\n")
    return lines[1:49152 - 256 - 2 + 1] if true else lines[1:200]


def clip_tokenizer(folder, merges):
    """CLIP's tokenizer in the files that transformers reads."""
    byte = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(b) for b in byte] + [chr(256 + i) for i in range(256 - len(byte))]
    bos, eos = "<|startoftext|>", "<|endoftext|>"
    vocab = letters + [x + "</w>" for x in letters] + ["".join(m.split()) for m in merges] + [bos, eos]
    json.dump({x: i for i, x in enumerate(vocab)}, open(f"{folder}/vocab.json", "w"), ensure_ascii=False)
    open(f"{folder}/merges.txt", "w").write("#version: 0.2\n" + "\n".join(merges) + "\n")
    json.dump(dict(tokenizer_class="CLIPTokenizer", bos_token=bos, eos_token=eos, unk_token=eos, pad_token=eos,
                   model_max_length=77), open(f"{folder}/tokenizer_config.json", "w"), indent=1)
    return len(vocab)


def transformers_clip(metric, sizes, act):
    """CLIPModel for CLIP score and PickScore. `sizes`: side, patch; width, heads, layers per tower; projection."""
    def make(folder, true):
        import transformers as t
        side, patch, wide, heads, layers, text, text_heads, text_layers, projection = sizes if true else (
            32, 8, 24, 2, 2, 16, 2, 2, 12)
        vocab = clip_tokenizer(folder, clip_merges(true))
        tower = lambda w, h, n: dict(hidden_size=w, num_attention_heads=h, num_hidden_layers=n, intermediate_size=4 * w,
                                     hidden_act=act)
        model = t.CLIPModel(t.CLIPConfig(
            text_config=dict(tower(text, text_heads, text_layers), vocab_size=vocab, max_position_embeddings=77,
                             bos_token_id=vocab - 2, eos_token_id=vocab - 1, pad_token_id=vocab - 1),
            vision_config=dict(tower(wide, heads, layers), image_size=side, patch_size=patch), projection_dim=projection)).eval()
        rows = draw(model)
        square = dict(height=side, width=side)
        json.dump(dict(image_processor_type="CLIPImageProcessor", do_resize=True, size=dict(shortest_edge=side), resample=3,
                       do_center_crop=True, crop_size=square, do_normalize=True, image_mean=MEAN, image_std=STD),
                  open(f"{folder}/preprocessor_config.json", "w"), indent=1)
        model.config.save_pretrained(folder)
        x, images = photographs(true)
        # The processor's torchvision backend rounds differently when it resizes; that changes these values by 2e-3.
        pixels = t.CLIPImageProcessorPil.from_pretrained(folder)(images, return_tensors="pt")
        tokens = t.CLIPTokenizer.from_pretrained(folder)(PROMPTS, padding=True, truncation=True, max_length=77, return_tensors="pt")
        unit = lambda y: y / y.norm(dim=-1, keepdim=True)
        values = (unit(model.get_image_features(**pixels).pooler_output) * unit(model.get_text_features(**tokens).pooler_output)).sum(-1)
        if metric == "pick_score":
            values = model.logit_scale.exp() * values
        if true:
            save_model(model, f"{folder}/model.safetensors")
        return dict(metric=metric, kind=metric, path="", weights="model.safetensors", recipe=rows, prompts=PROMPTS, pictures=x,
                    values=values)
    return make


def without_init(name, *folders):
    """Registers a package without running its __init__, which imports more than is needed here."""
    import importlib.util
    root = importlib.util.find_spec(name).submodule_search_locations[0]
    for folder in ("",) + folders:
        package = types.ModuleType(".".join([name] + folder.split("/")).rstrip("."))
        package.__path__ = [os.path.join(root, folder)]
        sys.modules[package.__name__] = package


def hps_v2(folder, true):
    import open_clip
    without_init("hpsv2", "src")
    bpe = "bpe_simple_vocab_16e6.txt.gz"  # its wheel lacks the file
    if not os.path.exists(f"{sys.modules['hpsv2'].__path__[0]}/src/open_clip/{bpe}"):
        shutil.copy(f"{os.path.dirname(open_clip.__file__)}/{bpe}", f"{sys.modules['hpsv2'].__path__[0]}/src/open_clip/{bpe}")
    hps = importlib.import_module("hpsv2.src.open_clip")
    merges = clip_merges(true)
    vocab = clip_tokenizer(folder, merges)
    vision = dict(image_size=224, layers=32, width=1280, head_width=80, patch_size=14) if true else dict(
        image_size=32, layers=2, width=24, head_width=12, patch_size=8)
    text = dict(context_length=77, vocab_size=vocab, width=1024, heads=16, layers=24) if true else dict(
        context_length=77, vocab_size=vocab, width=16, heads=2, layers=2)
    config = dict(embed_dim=1024 if true else 12, vision_cfg=vision, text_cfg=text)
    json.dump(dict(model_cfg=config, preprocess_cfg=dict(mean=MEAN, std=STD)), open(f"{folder}/open_clip_config.json", "w"), indent=1)
    model = hps.CLIP(**config, output_dict=True).eval()
    rows = draw(model)
    with gzip.open(f"{folder}/bpe.gz", "wb") as file:
        file.write(("#\n" + "\n".join(merges)).encode())
    tokenizer = hps.tokenizer.SimpleTokenizer(f"{folder}/bpe.gz")
    os.remove(f"{folder}/bpe.gz")
    hps.tokenizer._tokenizer = tokenizer
    preprocess = hps.image_transform(vision["image_size"], is_train=False, resize_longest_max=True)
    x, images = photographs(true)
    out = model(torch.stack([preprocess(image) for image in images]), hps.tokenizer.tokenize(PROMPTS))
    values = torch.diagonal(out["image_features"] @ out["text_features"].T)
    if true:
        save_model(model, f"{folder}/open_clip_model.safetensors")
    return dict(metric="hps_v2", kind="hps_v2", path="", weights="open_clip_model.safetensors", recipe=rows, prompts=PROMPTS,
                pictures=x, values=values)


def image_reward(folder, true):
    """Needs old packages: pip install -r requirements-image-reward.txt"""
    without_init("ImageReward", "models", "models/BLIP")
    official = importlib.import_module("ImageReward.ImageReward")
    blip = importlib.import_module("ImageReward.models.BLIP.blip")
    pretrain = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    import transformers as t
    letters = "abcdefghijklmnopqrstuvwxyz!,."
    words = ["the", "and", "cat", "owl", "red", "table", "prompt", "about", "##s", "##ery", "long", "##o", "two", "on"]
    vocab = ["[PAD]"] + [f"[unused{i}]" for i in range(99)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list(letters) + words
    if true:
        vocab += [f"[unused{i}]" for i in range(99, 99 + 30522 - len(vocab))]
    open(f"{folder}/vocab.txt", "w").write("\n".join(vocab) + "\n")
    t.BertTokenizerFast(f"{folder}/vocab.txt").save_pretrained(f"{folder}/tokenizer")
    shutil.move(f"{folder}/tokenizer/tokenizer.json", folder)
    shutil.rmtree(f"{folder}/tokenizer")
    # As on the hub: the config has no pad_token.
    json.dump(dict(do_lower_case=True, model_max_length=512), open(f"{folder}/tokenizer_config.json", "w"), indent=1)
    sizes = dict(hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072) if true else dict(
        hidden_size=24, num_attention_heads=2, num_hidden_layers=2, intermediate_size=40)
    json.dump(dict(architectures=["BertModel"], hidden_act="gelu", layer_norm_eps=1e-12, max_position_embeddings=512,
                   model_type="bert", vocab_size=len(vocab) + 2, encoder_width=768, add_cross_attention=True, pad_token_id=0,
                   **sizes), open(f"{folder}/med_config.json", "w"), indent=1)
    blip.BertTokenizer = types.SimpleNamespace(from_pretrained=lambda _: t.BertTokenizer(f"{folder}/vocab.txt"))
    if not true:
        pretrain.create_vit = lambda *_: (blip.VisionTransformer(img_size=32, patch_size=16, embed_dim=128, depth=2, num_heads=2), 128)
        head, transform = official.MLP, official._transform
        official.MLP, official._transform = lambda _: head(24), lambda _: transform(32)
    model = official.ImageReward(med_config=f"{folder}/med_config.json", device="cpu").eval()
    os.remove(f"{folder}/vocab.txt")
    rows = draw(model)
    x, images = photographs(true)
    values = [model.score(prompt, image) for prompt, image in zip(PROMPTS, images)]
    if true:
        save_file({k: v.contiguous() for k, v in model.state_dict().items() if v.is_floating_point()}, f"{folder}/model.safetensors")
    return dict(metric="image_reward", kind="image_reward", path="", weights="model.safetensors", recipe=rows, prompts=PROMPTS,
                pictures=x, values=values)


def fid(folder, true):
    from pytorch_fid import fid_score, inception
    from torchvision.models import Inception3
    load, fetch = Inception3.load_state_dict, inception.load_state_dict_from_url
    Inception3.load_state_dict, inception.load_state_dict_from_url = lambda *_: None, lambda *_, **__: {}
    net = inception.fid_inception_v3().eval()
    Inception3.load_state_dict = load
    rows = draw(net, but=("fc",))
    inception.load_state_dict_from_url = lambda *_, **__: net.state_dict()
    model = inception.InceptionV3().eval()
    inception.load_state_dict_from_url = fetch
    x, y = (pictures(24, 310, 340), pictures(20, 310, 340, 5)) if true else (pictures(6, 75, 60), pictures(5, 75, 60, 5))
    features = [torch.cat([model(z.unsqueeze(0).float() / 255)[0].flatten(1) for z in of]) for of in (x, y)]
    a, b = (f.double().numpy() for f in features)
    moments = [(f.mean(0), np.cov(f, rowvar=False)) for f in (a, b)]
    value = fid_score.calculate_frechet_distance(*moments[0], *moments[1])
    # pytorch-fid's square root of a singular matrix is inexact; the singular values of the samples' product are exact.
    cross = (a - a.mean(0)) @ (b - b.mean(0)).T / ((len(a) - 1) * (len(b) - 1)) ** 0.5
    exact = (np.square(moments[0][0] - moments[1][0]).sum() + np.trace(moments[0][1]) + np.trace(moments[1][1])
             - 2 * np.linalg.svd(cross, compute_uv=False).sum())
    print(f"fid: {value:.8g} by pytorch-fid, {exact:.8g} exactly")
    assert abs(value / exact - 1) < 1e-3
    if true:
        save_file({k: v.contiguous() for k, v in net.state_dict().items() if v.is_floating_point()}, f"{folder}/weights.safetensors")
    return dict(metric="fid", kind="fid", path="weights.safetensors", weights="weights.safetensors", recipe=rows, pictures=x,
                reference=y, features=features[0], values=[exact])


def cmmd(folder, true):
    import transformers as t
    from PIL import Image
    from clip_mmd import calculation, data
    make_clip = transformers_clip("clip_score", LARGE_336, "quick_gelu")
    made = make_clip(folder, true)
    config = t.CLIPConfig.from_pretrained(folder)
    side = config.vision_config.image_size
    model = t.CLIPModel(config).eval()
    draw(model)
    x, y = (pictures(4, 400, 380), pictures(3, 350, 500, 5)) if true else (pictures(6, 75, 60), pictures(5, 40, 60, 5))
    embeddings = []
    for of in (x, y):
        # clip-mmd confuses width and height, so it gets squares, cropped like in the authors' program.
        least = min(of.shape[2:])
        above, left = ((n - least) // 2 for n in of.shape[2:])
        of = of[:, :, above:above + least, left:left + least]
        images = [data.resizer(Image.fromarray(z.permute(1, 2, 0).numpy()), (side, side)) for z in of]
        pixels = torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1).float() / 255 for i in images])
        pixels = (pixels - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
        found = model.get_image_features(pixel_values=pixels).pooler_output
        embeddings.append((found / found.norm(dim=-1, keepdim=True)).double())
    return dict(metric="cmmd", kind="cmmd", path="", weights="model.safetensors", recipe=made["recipe"], pictures=x, reference=y,
                values=[calculation.mmd(*embeddings)])


# The sizes of openai/clip-vit-base-patch32, openai/clip-vit-large-patch14 and laion/CLIP-ViT-H-14-laion2B-s32B-b79K.
BASE, LARGE = (224, 32, 768, 12, 12, 512, 8, 12, 512), (224, 14, 1024, 16, 24, 768, 12, 12, 768)
LARGE_336 = (336,) + LARGE[1:]
HUGE = (224, 14, 1280, 16, 32, 1024, 16, 24, 1024)

METRICS = dict(ssim=ssim, lpips_alex=lpips("alex"), lpips_vgg=lpips("vgg"),
               clip_score=transformers_clip("clip_score", BASE, "quick_gelu"),
               clip_score_large=transformers_clip("clip_score", LARGE, "quick_gelu"),
               pick_score=transformers_clip("pick_score", HUGE, "gelu"), hps_v2=hps_v2, image_reward=image_reward, fid=fid, cmmd=cmmd)
# Metrics without a tiny variant.
TRUE_ONLY = ["clip_score_large"]


@torch.no_grad()
def make(name, folder, true):
    torch.manual_seed(0)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    made = METRICS[name](folder, true)
    tensors = {k: made.pop(k) for k in ("pictures", "uncached", "reference", "features") if k in made}
    tensors["values"] = torch.as_tensor(made.pop("values")).double().flatten()
    if true:
        made.pop("recipe", None)
    save_file({k: v.contiguous() for k, v in tensors.items()}, f"{folder}/golden.safetensors",
              metadata=dict(about=json.dumps(made)))
    print(f"{name}: {[round(v, 5) for v in tensors['values'].tolist()]}")
    assert torch.isfinite(tensors["values"]).all()


if __name__ == "__main__":
    if sys.argv[1:2] == ["tiny"]:
        for name in sys.argv[2:] or [name for name in METRICS if name not in TRUE_ONLY]:
            make(name, os.path.join(FIXTURES, name), False)
    elif sys.argv[1:2] == ["true"] and len(sys.argv) > 2:
        for name in sys.argv[3:] or METRICS:
            make(name, os.path.join(sys.argv[2], name), True)
    else:
        sys.exit(__doc__)
