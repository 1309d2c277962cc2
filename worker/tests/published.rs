//! Folders as their authors published them or as tools write them: tokenizer files of all library versions, duplicate
//! weight files, old class names. `tests/python/token_ids.py` records the results of transformers for the tokenizers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use common::{copy_model, model_dir, relative_error, values};
use evocache_proto::domain::Schedule;
use evocache_worker::cancel::CancelToken;
use evocache_worker::evaluator::pipeline::{BatchRequest, Pipeline};
use evocache_worker::files::ModelError;
use evocache_worker::models::tokenizer::{Kind, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A copy of a pipeline for a test to change.
fn copy(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    copy_model(&fixture(name), &model);
    (folder, model)
}

/// Changes a JSON file.
fn change(path: &Path, act: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    act(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Generates a picture with the pipeline in a folder.
fn picture(folder: &Path) -> Result<Tensor, ModelError> {
    let pipeline = Pipeline::load(folder, Device::Cpu)?;
    let texts = pipeline.encode(&["1", ""])?;
    let schedule = Schedule::all_compute(pipeline.layout().clone(), 3).unwrap();
    let request = BatchRequest {
        prompts: texts.batch(0, 1)?,
        negative: texts.batch(1, 1)?,
        size: pipeline.latent_size(Some(16), Some(16))?,
        seeds: &[3],
        guidance: pipeline.guidance(3.0),
        schedule: &schedule,
    };
    Ok(pipeline.generate(&request, &CancelToken::new(), &mut |_, _| ()).unwrap().pictures)
}

fn refusal(folder: &Path) -> String {
    picture(folder).unwrap_err().to_string()
}

#[test]
fn tokenizer_files_of_all_versions_give_the_ids_of_transformers() {
    let golden: Value = serde_json::from_str(&fs::read_to_string(fixture("tokenizers/golden.json")).unwrap()).unwrap();
    let texts: Vec<&str> = golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let cases = golden["cases"].as_object().unwrap();
    assert_eq!(cases.len(), 14);
    for (name, case) in cases {
        let kind = if case["kind"] == "t5" { Kind::T5 } else { Kind::Clip };
        let length = case["length"].as_u64().unwrap() as usize;
        // CLIP's length comes from its config, T5's from the pipeline.
        let asked = (kind == Kind::T5 || name == "clip_g").then_some(length);
        let tokenizer = Tokenizer::open(&fixture("tokenizers").join(name), kind, asked).unwrap();
        assert_eq!(tokenizer.length(), length, "{name}");
        let found = tokenizer.encode(&texts).unwrap();
        let mask = values(&found.mask(&Device::Cpu).unwrap());
        for (i, text) in texts.iter().enumerate() {
            let row = i * length..(i + 1) * length;
            assert_eq!(json!(found.ids()[row.clone()]), case["ids"][i], "{name}: {text:?}");
            let mask: Vec<u32> = mask[row].iter().map(|&one| one as u32).collect();
            assert_eq!(json!(mask), case["mask"][i], "{name}: {text:?}");
        }
    }
}

#[test]
fn the_bundled_models_spiece_model_equals_its_tokenizer_json() {
    let encode = |kind, folder: &Path| {
        let prompts = fs::read_to_string(model_dir().join("prompts.txt")).unwrap();
        Tokenizer::open(folder, kind, Some(24)).unwrap().encode(&prompts.lines().collect::<Vec<_>>()).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["spiece.model", "tokenizer_config.json"] {
        fs::copy(model_dir().join("tokenizer").join(name), folder.path().join(name)).unwrap();
    }
    let whole = encode(Kind::T5, &model_dir().join("tokenizer"));
    assert_eq!(encode(Kind::T5, folder.path()), whole);
    assert_eq!(encode(Kind::AsWritten, &model_dir().join("tokenizer")), whole);
}

#[test]
fn the_class_of_an_old_transformer_follows_from_its_norm() {
    let old = |name: &str, norm: Option<&str>| {
        let (folder, model) = copy(name);
        change(&model.join("model_index.json"), |index| index["transformer"][1] = "Transformer2DModel".into());
        change(&model.join("transformer/config.json"), |config| {
            config["_class_name"] = "Transformer2DModel".into();
            match norm {
                Some(norm) => config["norm_type"] = norm.into(),
                None => drop(config.as_object_mut().unwrap().remove("norm_type")),
            }
        });
        (folder, model)
    };
    for (name, norm) in [("pixart1024", "ada_norm_single"), ("sigma", "ada_norm_single"), ("dit", "ada_norm_zero")] {
        let (_folder, model) = old(name, Some(norm));
        assert_eq!(values(&picture(&model).unwrap()), values(&picture(&fixture(name)).unwrap()), "{name}");
        let (_folder, model) = old(name, None);
        assert!(refusal(&model).contains("field 'norm_type': expected a string, found nothing"), "{}", refusal(&model));
        let other = if norm == "ada_norm_zero" { "ada_norm_single" } else { "ada_norm_zero" };
        let (_folder, model) = old(name, Some(other));
        assert!(refusal(&model).contains(&format!("field 'norm_type': '{other}' is not supported")));
    }
}

/// Moves a part's weights into a shard with an index, and writes zeros into the single file.
fn shard(part: &Path, stem: &str) {
    let single = part.join(format!("{stem}.safetensors"));
    let weights = candle_core::safetensors::load(&single, &Device::Cpu).unwrap();
    fs::rename(&single, part.join("part-1.safetensors")).unwrap();
    let map: Value = weights.keys().map(|name| (name.clone(), json!("part-1.safetensors"))).collect();
    fs::write(part.join(format!("{stem}.safetensors.index.json")), json!({"weight_map": map}).to_string()).unwrap();
    let zeros: std::collections::HashMap<_, _> =
        weights.into_iter().map(|(name, weight)| (name, weight.zeros_like().unwrap())).collect();
    candle_core::safetensors::save(&zeros, &single).unwrap();
}

#[test]
fn the_libraries_differ_on_whether_a_single_file_or_a_sharded_set_comes_first() {
    let wanted = values(&picture(&fixture("pixart1024")).unwrap());
    // diffusers prefers the sharded set.
    let (_folder, model) = copy("pixart1024");
    shard(&model.join("transformer"), "diffusion_pytorch_model");
    shard(&model.join("vae"), "diffusion_pytorch_model");
    assert_eq!(values(&picture(&model).unwrap()), wanted);
    // transformers prefers the single file.
    let (_folder, model) = copy("pixart1024");
    shard(&model.join("text_encoder"), "model");
    assert_ne!(values(&picture(&model).unwrap()), wanted);
    fs::remove_file(model.join("text_encoder/model.safetensors")).unwrap();
    assert_eq!(values(&picture(&model).unwrap()), wanted);
}

#[test]
fn the_index_decides_on_the_sampler() {
    let with = |class: &str, own: Option<&str>| {
        let (folder, model) = copy("dit");
        change(&model.join("model_index.json"), |index| index["scheduler"][1] = class.into());
        change(&model.join("scheduler/scheduler_config.json"), |config| match own {
            Some(own) => config["_class_name"] = own.into(),
            None => drop(config.as_object_mut().unwrap().remove("_class_name")),
        });
        (folder, model)
    };
    let (ddim, dpm) = ("DDIMScheduler", "DPMSolverMultistepScheduler");
    let pictures = [ddim, dpm].map(|class| {
        let same: Vec<_> = [Some(ddim), Some(dpm), Some("EulerDiscreteScheduler"), None]
            .map(|own| values(&picture(&with(class, own).1).unwrap()))
            .into();
        assert!(same.iter().all(|picture| *picture == same[0]), "{class}");
        same[0].clone()
    });
    assert_ne!(pictures[0], pictures[1]);
    let error = refusal(&with("FlowMatchEulerDiscreteScheduler", Some(ddim)).1);
    assert!(error.contains("field 'scheduler': 'FlowMatchEulerDiscreteScheduler' is not supported"), "{error}");
}

#[test]
fn latents_are_shifted_by_the_pipelines_that_do_so() {
    let with = |name: &str, field: &str, value: Value| {
        let (_folder, model) = copy(name);
        change(&model.join("vae/config.json"), |config| config[field] = value);
        picture(&model).map(|picture| values(&picture))
    };
    let statistics = |channels| json!(vec![0.7; channels]);
    for (name, shifts, channels) in [("pixart1024", false, 4), ("dit", false, 4), ("flux", true, 16), ("sd3", true, 16)]
    {
        let wanted = values(&picture(&fixture(name)).unwrap());
        assert_eq!(with(name, "shift_factor", json!(0.5)).unwrap() != wanted, shifts, "{name}");
        for field in ["latents_mean", "latents_std"] {
            assert_eq!(with(name, field, statistics(channels)).unwrap(), wanted, "{name}: {field}");
        }
        let nothing = with(name, "shift_factor", Value::Null);
        match nothing {
            Ok(found) => assert!(!shifts && found == wanted, "{name}"),
            Err(error) => assert!(shifts && error.to_string().contains("field 'shift_factor'"), "{name}: {error}"),
        }
    }
}

#[test]
fn t5_has_as_many_tokens_as_the_pipeline_says() {
    let cases = [
        ("pixart1024", "tokenizer", 0, 120),
        ("sigma", "tokenizer", 0, 300),
        ("flux", "tokenizer_2", 0, 512),
        ("sd35", "tokenizer_3", 16, 256),
    ];
    for (name, t5, clip, own) in cases {
        let (_folder, model) = copy(name);
        let tokens = || Pipeline::load(&model, Device::Cpu).map(|pipeline| pipeline.tokens());
        assert_eq!(tokens().unwrap(), clip + 24, "{name}: from its index");
        change(&model.join("model_index.json"), |index| {
            index.as_object_mut().unwrap().remove("_max_sequence_length");
        });
        change(&model.join(t5).join("tokenizer_config.json"), |config| config["model_max_length"] = 20.into());
        assert_eq!(tokens().unwrap(), clip + own, "{name}: independent of its tokenizer");
    }
}

#[test]
fn the_clips_of_a_pipeline_take_as_many_tokens_as_its_first_tokenizer_says() {
    let (_folder, model) = copy("sd3");
    // The pipeline ignores the length of the second tokenizer.
    change(&model.join("tokenizer_2/tokenizer_config.json"), |config| config["model_max_length"] = 9.into());
    assert_eq!(values(&picture(&model).unwrap()), values(&picture(&fixture("sd3")).unwrap()));
    change(&model.join("tokenizer/tokenizer_config.json"), |config| config["model_max_length"] = 248.into());
    let error = refusal(&model);
    assert!(
        error.contains("text_encoder") && error.contains("'max_position_embeddings': expected at least 248"),
        "{error}"
    );
}

#[test]
fn a_text_encoder_that_is_swapped_while_it_is_used_is_refused() {
    let (_folder, model) = copy("pixart1024");
    let pipeline = Pipeline::load(&model, Device::Cpu).unwrap();
    let fingerprint = pipeline.folder().fingerprint().unwrap();
    let before = pipeline.encode(&["a cat"]).unwrap().embeddings.unwrap();
    // A new file with the same weights is accepted.
    let file = model.join("text_encoder/model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, &bytes).unwrap();
    assert!(relative_error(&pipeline.encode(&["a cat"]).unwrap().embeddings.unwrap(), &before) == 0.0);
    // Changed weights and a changed tokenizer are refused.
    let mut other = bytes;
    let end = other.len();
    other[end - 1] ^= 1;
    fs::write(&file, &other).unwrap();
    let error = pipeline.encode(&["a cat"]).unwrap_err();
    assert!(error.to_string().contains("text_encoder/model.safetensors' has changed since"), "{error}");
    assert!(error.hint().is_some());
    assert_ne!(Pipeline::load(&model, Device::Cpu).unwrap().folder().fingerprint().unwrap(), fingerprint);
    let (_folder, model) = copy("pixart1024");
    let pipeline = Pipeline::load(&model, Device::Cpu).unwrap();
    change(&model.join("tokenizer/tokenizer_config.json"), |config| config["extra_ids"] = 1.into());
    let error = pipeline.encode(&["a cat"]).unwrap_err();
    assert!(error.to_string().contains("tokenizer_config.json' has changed since"), "{error}");
    assert_ne!(Pipeline::load(&model, Device::Cpu).unwrap().folder().fingerprint().unwrap(), fingerprint);
}

#[test]
fn published_folders_draw_what_diffusers_draws() {
    println!("{:<40} {:>12} {:>12} {:>12}", "folder", "latents", "pictures", "of 255");
    let mut folders: Vec<PathBuf> = fs::read_dir(fixture("published")).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    assert_eq!(folders.len(), 9);
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = fs::read(folder.join("golden.safetensors")).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let about: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["about"]).unwrap();
        let golden = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
        let number = |field: &str| u32::try_from(about[field].as_u64().unwrap()).unwrap();
        let mut texts: Vec<&str> = about["prompts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let seeds: Vec<u64> = about["seeds"].as_array().unwrap().iter().map(|seed| seed.as_u64().unwrap()).collect();
        let pipeline = Pipeline::load(&folder, Device::Cpu).unwrap_or_else(|error| panic!("{name}: {error}"));
        texts.push(about["negative"].as_str().unwrap());
        let texts = pipeline.encode(&texts).unwrap();
        let schedule = Schedule::all_compute(pipeline.layout().clone(), number("steps")).unwrap();
        let request = BatchRequest {
            prompts: texts.batch(0, 2).unwrap(),
            negative: texts.repeated(2, 2).unwrap(),
            size: pipeline.latent_size(Some(number("height")), Some(number("width"))).unwrap(),
            seeds: &seeds,
            guidance: pipeline.guidance(about["guidance"].as_f64().unwrap()),
            schedule: &schedule,
        };
        let (wanted, mut latents) = (&golden["latents_by_step"], 0f64);
        let generated = pipeline
            .generate(&request, &CancelToken::new(), &mut |step, found| {
                latents = latents.max(relative_error(found, &wanted.get(step as usize).unwrap()));
            })
            .unwrap();
        let pictures = relative_error(&generated.pictures, &golden["pictures"]);
        let difference = (&generated.pictures - &golden["pictures"]).unwrap().abs().unwrap();
        let worst = values(&difference).into_iter().fold(0f32, f32::max) * 255.0;
        println!("{name:<40} {latents:>12.1e} {pictures:>12.1e} {worst:>12.4}");
        assert!(latents < 1e-4 && pictures < 1e-4 && worst < 0.1, "{name}");
    }
}

#[test]
fn pickled_weights_that_are_something_else_are_refused() {
    let (_folder, model) = copy("published/DiT-XL-2-256");
    let file = model.join("transformer/diffusion_pytorch_model.bin");
    let bytes = fs::read(&file).unwrap();
    for damage in [&bytes[..bytes.len() - 100], &bytes[..200], b"<!DOCTYPE html><html>404</html>", b""] {
        fs::write(&file, damage).unwrap();
        let error = refusal(&model);
        assert!(error.contains("diffusion_pytorch_model.bin' is damaged: "), "{error}");
    }
    fs::remove_file(&file).unwrap();
    let error = Pipeline::load(&model, Device::Cpu).err().unwrap();
    assert!(error.hint().unwrap().contains("or diffusion_pytorch_model.bin"), "{error}");
}

#[test]
fn a_damaged_tokenizer_is_refused_or_gives_other_tokens_but_never_panics() {
    let (source, folder) = (fixture("tokenizers/t5_published/spiece.model"), tempfile::tempdir().unwrap());
    let (bytes, file) = (fs::read(&source).unwrap(), folder.path().join("spiece.model"));
    let texts = ["a red apple, ﬁre ① Ⅳ", "naïve 你好 🙂 “quoted” \u{0}\u{7f}"];
    // Whether it is refused.
    let attempt = |damaged: &[u8]| {
        fs::write(&file, damaged).unwrap();
        let outcome = Tokenizer::open(folder.path(), Kind::T5, Some(12)).and_then(|tokenizer| tokenizer.encode(&texts));
        outcome.is_err()
    };
    let mut refused = 0;
    for i in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[i] ^= change;
            refused += usize::from(attempt(&damaged));
        }
        refused += usize::from(attempt(&bytes[..i]));
    }
    assert!(refused > bytes.len() && !attempt(&bytes), "{refused}");
}
