//! The body of a request for pictures: which fields there are, and the bounds of each.
//!
//! A field that is not known is refused by name: a client that misspells one would otherwise get another picture than it
//! asked for. Sizes are checked against the model in `run.rs`.

use serde_json::{Map, Value};

use super::refusal::Refusal;

type Result<T> = std::result::Result<T, Refusal>;

/// Bytes of a prompt; as in a search.
const MAX_PROMPT_BYTES: usize = evocache_proto::domain::limits::MAX_PROMPT_BYTES;
/// Bytes of a user's name.
const MAX_USER_BYTES: usize = 256;
/// The fields, as they are named in a refusal.
const FIELDS: &str = "prompt, model, n, size, seed, num_inference_steps, guidance_scale, negative_prompt, \
                      response_format, output_format, schedule, user";

/// Where the answer has its pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In the answer.
    Base64,
    /// At an address in the answer.
    Url,
}

/// What a client asks for.
#[derive(Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) prompt: String,
    pub(super) negative: String,
    pub(super) count: u32,
    /// Height and width in pixels.
    pub(super) size: Option<(u32, u32)>,
    pub(super) seed: Option<u64>,
    pub(super) steps: Option<u32>,
    pub(super) guidance: Option<f64>,
    pub(super) form: Form,
    pub(super) user: String,
    pub(super) model: Option<String>,
    /// Whether a schedule may be used.
    pub(super) cached: bool,
}

impl Wanted {
    /// Reads a body. `most` is the largest number of pictures.
    pub(super) fn read(body: &[u8], most: u32) -> Result<Self> {
        let json: Value = serde_json::from_slice(body).map_err(|e| {
            // Not the parser's own text, which may repeat a part of the prompt.
            let place = format!("line {}, column {}", e.line(), e.column());
            let what = if e.is_eof() { "it ends too early" } else { "it is not JSON" };
            Refusal::unusable(axum::http::StatusCode::BAD_REQUEST, "invalid_json", format!("the body: {what}, {place}"))
        })?;
        let Value::Object(fields) = json else {
            let code = axum::http::StatusCode::BAD_REQUEST;
            return Err(Refusal::unusable(code, "invalid_json", "the body is not a JSON object"));
        };
        let mut wanted = Self::plain();
        if !fields.contains_key("prompt") {
            return Err(Refusal::invalid("prompt", "missing_field", "'prompt' is missing"));
        }
        wanted.take(fields, most)?;
        Ok(wanted)
    }

    /// One picture without a prompt, with the default settings.
    pub(super) fn plain() -> Self {
        Self {
            prompt: String::new(),
            negative: String::new(),
            count: 1,
            size: None,
            seed: None,
            steps: None,
            guidance: None,
            form: Form::Base64,
            user: String::new(),
            model: None,
            cached: true,
        }
    }

    fn take(&mut self, fields: Map<String, Value>, most: u32) -> Result<()> {
        for (name, value) in fields {
            // Clients send null for what they leave out.
            if value.is_null() && name != "prompt" {
                continue;
            }
            match name.as_str() {
                "prompt" => self.prompt = text(&name, value, MAX_PROMPT_BYTES)?,
                "negative_prompt" => self.negative = text(&name, value, MAX_PROMPT_BYTES)?,
                "user" => self.user = text(&name, value, MAX_USER_BYTES)?,
                "model" => self.model = Some(text(&name, value, evocache_proto::domain::limits::MAX_NAME * 4)?),
                "n" => self.count = number(&name, &value, 1, most)?,
                "num_inference_steps" => {
                    self.steps = Some(number(&name, &value, 1, evocache_proto::domain::limits::MAX_STEPS)?);
                }
                "seed" => {
                    let seed = value.as_u64();
                    self.seed = Some(seed.ok_or_else(|| wrong(&name, "a whole number from 0 to 2^64 - 1"))?);
                }
                "guidance_scale" => {
                    let scale = value.as_f64().filter(|scale| (0.0..=100.0).contains(scale));
                    self.guidance = Some(scale.ok_or_else(|| wrong(&name, "a number from 0 to 100"))?);
                }
                "size" => self.size = size(&name, &value)?,
                "response_format" => {
                    self.form = match value.as_str() {
                        Some("b64_json") => Form::Base64,
                        Some("url") => Form::Url,
                        _ => return Err(wrong(&name, "'b64_json' or 'url'")),
                    };
                }
                "output_format" if value == "png" => {}
                "output_format" => return Err(wrong(&name, "'png'")),
                "schedule" => {
                    self.cached = match value.as_str() {
                        Some("best") => true,
                        Some("none") => false,
                        _ => return Err(wrong(&name, "'best' or 'none'")),
                    };
                }
                _ => {
                    let shown: String = name.chars().take(64).collect();
                    let message = format!("unknown field '{shown}'; the fields are {FIELDS}");
                    return Err(Refusal::invalid(&shown, "unknown_field", message));
                }
            }
        }
        Ok(())
    }
}

fn wrong(name: &str, wanted: &str) -> Refusal {
    Refusal::invalid(name, "invalid_value", format!("'{name}' must be {wanted}"))
}

fn text(name: &str, value: Value, most: usize) -> Result<String> {
    match value {
        Value::String(text) if text.len() <= most => Ok(text),
        Value::String(text) => {
            let message = format!("'{name}' has {} bytes, more than {most}", text.len());
            Err(Refusal::invalid(name, "too_long", message))
        }
        _ => Err(wrong(name, "a text")),
    }
}

fn number(name: &str, value: &Value, least: u32, most: u32) -> Result<u32> {
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| wrong(name, &format!("a whole number from {least} to {most}")))
}

/// `auto`, or a width and a height in pixels, such as `512x768`; returns height and width.
fn size(name: &str, value: &Value) -> Result<Option<(u32, u32)>> {
    let side = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match value.as_str() {
        Some("auto") => Ok(None),
        Some(text) => {
            let sides = text.split_once('x').and_then(|(width, height)| Some((side(height)?, side(width)?)));
            sides.map(Some).ok_or_else(|| wrong(name, "WIDTHxHEIGHT in pixels, such as '512x512', or 'auto'"))
        }
        None => Err(wrong(name, "WIDTHxHEIGHT in pixels, such as '512x512', or 'auto'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Wanted, String> {
        Wanted::read(text.as_bytes(), 10).map_err(|refusal| format!("{refusal:?}"))
    }

    #[test]
    fn a_whole_request_is_read() {
        let Ok(wanted) = read(
            r#"{"prompt": "an owl", "negative_prompt": "fog", "n": 2, "size": "64x32", "seed": 18446744073709551615,
                "num_inference_steps": 7, "guidance_scale": 3, "response_format": "url", "user": "ada",
                "model": null, "output_format": "png", "schedule": "none"}"#,
        ) else {
            panic!("not read");
        };
        assert_eq!((wanted.prompt.as_str(), wanted.negative.as_str(), wanted.count), ("an owl", "fog", 2));
        assert_eq!((wanted.size, wanted.seed), (Some((32, 64)), Some(u64::MAX)));
        assert_eq!((wanted.steps, wanted.guidance, wanted.form), (Some(7), Some(3.0), Form::Url));
        assert!(wanted.user == "ada" && wanted.model.is_none() && !wanted.cached);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(MAX_PROMPT_BYTES + 1);
        for (body, wanted) in [
            ("", "ends too early"),
            (r#"{"prompt": "an owl"#, "ends too early"),
            ("prompt=owl", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "'prompt' is missing"),
            (r#"{"prompt": null}"#, "'prompt' must be a text"),
            (r#"{"prompt": "", "promt": 1}"#, "unknown field 'promt'"),
            (r#"{"prompt": "", "n": 0}"#, "'n' must be a whole number from 1 to 10"),
            (r#"{"prompt": "", "n": 1000}"#, "'n' must be"),
            (r#"{"prompt": "", "n": 1.5}"#, "'n' must be"),
            (r#"{"prompt": "", "seed": -1}"#, "'seed' must be"),
            (r#"{"prompt": "", "size": "64"}"#, "'size' must be WIDTHxHEIGHT"),
            (r#"{"prompt": "", "size": "+64x64"}"#, "'size' must be"),
            (r#"{"prompt": "", "size": "64x99999999999"}"#, "'size' must be"),
            (r#"{"prompt": "", "guidance_scale": NaN}"#, "not JSON"),
            (r#"{"prompt": "", "guidance_scale": 1e999}"#, "not JSON"),
            (r#"{"prompt": "", "guidance_scale": 101}"#, "'guidance_scale' must be a number from 0 to 100"),
            (r#"{"prompt": "", "num_inference_steps": 1001}"#, "from 1 to 1000"),
            (r#"{"prompt": "", "response_format": "jpeg"}"#, "'b64_json' or 'url'"),
            (r#"{"prompt": "", "output_format": "jpeg"}"#, "'png'"),
            (r#"{"prompt": "", "schedule": "x"}"#, "'best' or 'none'"),
            (&format!(r#"{{"prompt": "{long}"}}"#), "more than 8192"),
        ] {
            let said = read(body).err().unwrap_or_default();
            assert!(said.contains(wanted), "{body}: {said}");
        }
        let said = read(r#"{"prompt": "a secret", "n": {}}"#).err().unwrap_or_default()
            + &read("a secret").err().unwrap_or_default();
        assert!(!said.contains("secret"), "{said}");
    }
}
