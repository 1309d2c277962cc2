"""The fields of every config class that the worker reads, with their defaults, in the installed diffusers and
transformers. `python fields.py` records them in tests/fixtures/fields.json; `python fields.py check` fails if the
installed libraries differ from the record. tests/fields.rs compares the worker's table with the record.
pip install torch diffusers==0.42.1 transformers==5.24.0"""
import dataclasses, inspect, json, os, sys, warnings
warnings.filterwarnings("ignore")
import diffusers as d
import transformers as t

CLASSES = [
    d.PixArtAlphaPipeline, d.PixArtSigmaPipeline, d.DiTPipeline, d.FluxPipeline, d.StableDiffusion3Pipeline,
    d.PixArtTransformer2DModel, d.DiTTransformer2DModel, d.FluxTransformer2DModel, d.SD3Transformer2DModel,
    d.Transformer2DModel, d.AutoencoderKL,
    d.DPMSolverMultistepScheduler, d.DDIMScheduler, d.FlowMatchEulerDiscreteScheduler,
    t.T5Config, t.CLIPTextConfig, t.T5Tokenizer, t.CLIPTokenizer,
]


def plain(value):
    if value is inspect.Parameter.empty or value is dataclasses.MISSING:
        return "required"
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return str(value)


def fields(cls):
    if dataclasses.is_dataclass(cls):
        own = {f.name: f.default for f in dataclasses.fields(cls) if f.name in cls.__annotations__}
    else:
        own = {p.name: p.default for p in inspect.signature(cls.__init__).parameters.values()
               if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"}
    return {name: plain(default) for name, default in own.items() if not name.startswith("_")}


if __name__ == "__main__":
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "fields.json")
    found = dict(diffusers=d.__version__, transformers=t.__version__, classes={c.__name__: fields(c) for c in CLASSES})
    if sys.argv[1:] == ["check"]:
        known = json.load(open(path))["classes"]
        for name, own in found["classes"].items():
            assert own == known[name], (name, {k: (own.get(k), known[name].get(k)) for k in own.keys() | known[name].keys()
                                               if own.get(k) != known[name].get(k)})
        print(f"{len(known)} classes with {sum(map(len, known.values()))} fields as recorded")
    else:
        json.dump(found, open(path, "w"), indent=1)
