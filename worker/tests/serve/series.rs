//! `batch`: a picture for every prompt, whatever interrupts it.

use std::process::{Output, Stdio};
use std::time::Duration;

use crate::generated;
use crate::server::{PATIENCE, model, worker};

const PROMPTS: &str = "{\"prompt\": \"an owl\"}\n\
                       {\"prompt\": \"a red apple\", \"seed\": 41, \"size\": \"48x32\"}\n\
                       {\"prompt\": \"a pizza\", \"num_inference_steps\": 5, \"guidance_scale\": 5}\n";

struct Batch {
    folder: tempfile::TempDir,
}

impl Batch {
    fn new(name: &str, prompts: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), prompts).unwrap();
        Self { folder }
    }

    fn command(&self, name: &str, more: &[&str]) -> std::process::Command {
        let (prompts, out, model) = (self.folder.path().join(name), self.folder.path().join("out"), model());
        let mut command = worker(&["batch"]);
        command.arg(prompts).arg("--out").arg(out).arg("--model").arg(model).args(more);
        command
    }

    fn run(&self, name: &str, more: &[&str]) -> Output {
        self.command(name, more).output().unwrap()
    }

    fn picture(&self, number: usize) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("out/{number:06}.png"))).unwrap()
    }

    /// The numbers of the pictures with a line in results.jsonl, in its order.
    fn lines(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.folder.path().join("out/results.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let number = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["number"].as_u64().unwrap();
        whole.lines().map(number).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_prompt_gets_the_picture_that_generate_draws() {
    let batch = Batch::new("prompts.jsonl", PROMPTS);
    let fixed = ["--steps", "4", "--guidance", "3", "--seed", "7", "--batch", "1"];
    let output = batch.run("prompts.jsonl", &fixed);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).ends_with("out: 3 of 3 pictures\n"), "{}", text(&output.stdout));
    let owl = generated(&["--prompt", "an owl", "--seed", "7", "--steps", "4", "--guidance", "3"]);
    let wide = ["--width", "48", "--height", "32", "--steps", "4", "--guidance", "3", "--seed", "41"];
    let wide = generated(&[&["--prompt", "a red apple"], &wide[..]].concat());
    let pizza = generated(&["--prompt", "a pizza", "--seed", "9", "--steps", "5", "--guidance", "5"]);
    assert!(batch.picture(0) == owl && batch.picture(1) == wide && batch.picture(2) == pizza);

    // Again: nothing to do. With other settings: not into this folder.
    let output = batch.run("prompts.jsonl", &fixed);
    assert!(output.status.success() && batch.lines().len() == 3, "{}", text(&output.stderr));
    let said = text(&batch.run("prompts.jsonl", &["--steps", "5"]).stderr);
    assert!(said.contains("other settings") && said.contains("hint: give another folder"), "{said}");
}

#[test]
fn what_cannot_be_drawn_is_told_and_harms_no_other() {
    let batch = Batch::new(
        "p.jsonl",
        "{\"prompt\": \"an owl\"}\n{\"prompt\": \"an owl\", \"size\": \"63x64\"}\n{\"prompt\": \"a cat\"}\n",
    );
    for _ in 0..2 {
        let output = batch.run("p.jsonl", &["--steps", "2"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("picture 000001 cannot be drawn") && said.contains("multiple of"), "{said}");
        assert_eq!(batch.lines(), [0, 2]);
    }
}

#[test]
fn a_batch_that_is_killed_goes_on_and_draws_every_picture_once() {
    let prompts: String = (0..40).map(|number| format!("an owl {number}\n")).collect();
    let batch = Batch::new("prompts.txt", &prompts);
    let fixed = ["--steps", "20", "--guidance", "3", "--batch", "2"];
    for kill in 0..5 {
        let before = batch.lines().len();
        let mut process =
            batch.command("prompts.txt", &fixed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        for _ in 0..PATIENCE.as_millis() / 5 {
            if batch.lines().len() > before + kill % 3 || process.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let killed = batch.lines().len();
    assert!((5..40).contains(&killed), "{killed}");
    let output = batch.run("prompts.txt", &fixed);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut lines = batch.lines();
    lines.sort_unstable();
    assert_eq!(lines, (0..40).collect::<Vec<_>>());
    assert!((0..40).all(|number| batch.picture(number).starts_with(b"\x89PNG")));
}
