//! Metrics against the official Python packages on the same pictures (`tests/fixtures/metrics`, made by
//! `tests/python/metrics.py`). `EVOCACHE_METRIC` names the folder of another metric, such as those of true size that
//! `tests/python/true_metrics.sh` makes. `-- --nocapture` prints the errors.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and shows its numbers")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use evocache_worker::metrics::Set;
use evocache_worker::metrics::choice::MetricChoice;
use evocache_worker::metrics::fid::Fid;
use evocache_worker::samplers::noise::randn;
use serde::Deserialize;

/// Largest relative error of the values of a metric.
const LIMIT: f64 = 1e-4;
/// The same at true sizes, where many more terms are added in a different order.
const TRUE_LIMIT: f64 = 1e-3;

/// A tensor of normal values: name, shape, mean, scale. Its seed is its index in the recipe.
type Drawn = (String, Vec<usize>, f64, f64);

/// How a fixture was made.
#[derive(Deserialize)]
struct About {
    /// The name that the metric declares.
    metric: String,
    /// The name that chooses it.
    kind: String,
    /// The metric's path in the fixture's folder; empty for the folder itself, `None` for a metric without weights.
    path: Option<String>,
    /// The file of drawn weights.
    weights: Option<String>,
    #[serde(default)]
    prompts: Vec<String>,
    /// Weights to draw.
    recipe: Option<Vec<Drawn>>,
}

struct Fixture {
    about: About,
    golden: HashMap<String, Tensor>,
    folder: PathBuf,
    /// Keeps the folder of drawn weights alive.
    _drawn: Option<tempfile::TempDir>,
}

impl Fixture {
    fn open(folder: &Path) -> Self {
        let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about: About = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
        let golden = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let Some(recipe) = &about.recipe else {
            return Self { about, golden, folder: folder.into(), _drawn: None };
        };
        let drawn = tempfile::tempdir().unwrap();
        let weights: HashMap<String, Tensor> = recipe
            .iter()
            .zip(0u64..)
            .map(|((name, shape, mean, scale), seed)| {
                let values = randn(seed, shape.iter().product());
                let values = values.into_iter().map(|x| (mean + scale * f64::from(x)) as f32).collect::<Vec<_>>();
                (name.clone(), Tensor::from_vec(values, shape.as_slice(), &Device::Cpu).unwrap())
            })
            .collect();
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), drawn.path().join(entry.file_name())).unwrap();
        }
        let file = drawn.path().join(about.weights.as_deref().unwrap());
        candle_core::safetensors::save(&weights, file).unwrap();
        Self { about, golden, folder: drawn.path().into(), _drawn: Some(drawn) }
    }

    fn choice(&self) -> MetricChoice {
        let path = self.folder.join(self.about.path.as_deref().unwrap_or_default());
        let text = match &self.about.path {
            Some(_) => format!("{}={}", self.about.kind, path.display()),
            None => self.about.kind.clone(),
        };
        text.parse().unwrap()
    }

    /// Pictures in [0, 1].
    fn pictures(&self, name: &str) -> Option<Tensor> {
        self.golden.get(name).map(|bytes| (bytes.to_dtype(DType::F32).unwrap() / 255.0).unwrap())
    }

    fn values(&self) -> Vec<f64> {
        self.golden["values"].to_vec1().unwrap()
    }
}

/// ‖found − wanted‖ / ‖wanted‖.
fn relative_error(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let off: f64 = found.iter().zip(wanted).map(|(a, b)| (a - b).powi(2)).sum();
    (off / wanted.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

fn agrees_with_python(folder: &Path, limit: f64) {
    let fixture = Fixture::open(folder);
    let found = if fixture.choice().is_of_sets() { of_sets(&fixture) } else { of_pictures(&fixture) };
    let error = relative_error(&found, &fixture.values());
    println!("{:<20} {error:>10.2e}", fixture.about.metric);
    assert!(error <= limit, "{}: {error:e}, {found:?} is not {:?}", fixture.about.metric, fixture.values());
}

/// Measures a metric of sets, each set in two batches.
fn of_sets(fixture: &Fixture) -> Vec<f64> {
    let mut metric = fixture.choice().load_of_sets(&Device::Cpu).unwrap();
    assert_eq!(metric.declaration().name, fixture.about.metric);
    assert!(metric.value().is_err(), "there is nothing to compare yet");
    for (set, name) in [(Set::Scored, "pictures"), (Set::Reference, "reference")] {
        let pictures = fixture.pictures(name).unwrap();
        let count = pictures.dim(0).unwrap();
        metric.add(set, &pictures.narrow(0, 0, 2).unwrap()).unwrap();
        metric.add(set, &pictures.narrow(0, 2, count - 2).unwrap()).unwrap();
    }
    vec![metric.value().unwrap()]
}

fn of_pictures(fixture: &Fixture) -> Vec<f64> {
    let mut metric = fixture.choice().load(&Device::Cpu).unwrap();
    assert_eq!(metric.declaration().name, fixture.about.metric);
    let pictures = fixture.pictures("pictures").unwrap();
    let uncached: Vec<Tensor> = fixture.pictures("uncached").into_iter().collect();
    let prompts: Vec<&str> = fixture.about.prompts.iter().map(String::as_str).collect();
    metric.prepare(&prompts, &uncached).unwrap();
    // Two batches: values must not depend on where a batch begins.
    let (count, cut) = (pictures.dim(0).unwrap(), 1);
    let mut found = metric.measure(0, &pictures.narrow(0, 0, cut).unwrap()).unwrap();
    found.extend(metric.measure(cut, &pictures.narrow(0, cut, count - cut).unwrap()).unwrap());
    found
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics").join(name)
}

#[test]
fn ssim_agrees_with_scikit_image() {
    agrees_with_python(&fixture("ssim"), LIMIT);
}

#[test]
fn lpips_of_alexnet_agrees_with_its_package() {
    agrees_with_python(&fixture("lpips_alex"), LIMIT);
}

#[test]
fn lpips_of_vgg_agrees_with_its_package() {
    agrees_with_python(&fixture("lpips_vgg"), LIMIT);
}

#[test]
fn clip_score_and_pick_score_agree_with_transformers() {
    agrees_with_python(&fixture("clip_score"), LIMIT);
    agrees_with_python(&fixture("pick_score"), LIMIT);
}

#[test]
fn hps_v2_agrees_with_its_package() {
    agrees_with_python(&fixture("hps_v2"), LIMIT);
}

#[test]
fn image_reward_agrees_with_its_package() {
    agrees_with_python(&fixture("image_reward"), LIMIT);
}

#[test]
fn cmmd_agrees_with_its_package() {
    agrees_with_python(&fixture("cmmd"), LIMIT);
}

#[test]
fn inception_features_and_fid_agree_with_pytorch_fid() {
    let fixture = Fixture::open(&fixture("fid"));
    let fid = Fid::load(&fixture.folder.join("weights.safetensors"), &Device::Cpu).unwrap();
    let features = fid.features(&fixture.pictures("pictures").unwrap()).unwrap();
    let flat = |x: &Tensor| -> Vec<f64> { x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap() };
    let error = relative_error(&flat(&features), &flat(&fixture.golden["features"]));
    println!("{:<20} {error:>10.2e}", "inception features");
    assert!(error <= 1e-5, "{error:e}");
    agrees_with_python(&self::fixture("fid"), LIMIT);
}

#[test]
#[ignore = "needs EVOCACHE_METRIC, the folder of a metric with its golden.safetensors"]
fn another_metric_agrees_with_python() {
    #[expect(clippy::disallowed_methods, reason = "a test takes no arguments")]
    let folder = std::env::var("EVOCACHE_METRIC").unwrap();
    agrees_with_python(Path::new(&folder), TRUE_LIMIT);
}

#[test]
fn a_missing_or_wrong_file_is_an_error_with_a_hint() {
    let load = |text: &str| text.parse::<MetricChoice>().unwrap().load(&Device::Cpu).err().unwrap();
    let error = load("lpips=/nowhere/lpips.safetensors");
    assert!(error.to_string().contains("/nowhere/lpips.safetensors"), "{error}");
    assert!(error.hint().unwrap().contains("lpips.LPIPS(net='alex')"));
    for (text, missing, hint) in [
        ("clip_score=/nowhere", "config.json", "AutoProcessor"),
        ("hps_v2=/nowhere", "open_clip_config.json", "open_clip_model.safetensors"),
        ("image_reward=/nowhere", "med_config.json", "bert-base-uncased"),
    ] {
        let error = load(text);
        assert_eq!(error.to_string(), format!("'/nowhere/{missing}' is missing"));
        assert!(error.hint().unwrap().contains(hint));
    }
    let error = "fid=/nowhere".parse::<MetricChoice>().unwrap().load_of_sets(&Device::Cpu).err().unwrap();
    assert!(error.hint().unwrap().contains("pt_inception-2015-12-05"), "{error}");
    let other = fixture("ssim").join("golden.safetensors");
    let error = load(&format!("lpips={}", other.display()));
    assert!(error.to_string().contains("has no tensor 'net.slice1.0.weight'"), "{error}");
}
