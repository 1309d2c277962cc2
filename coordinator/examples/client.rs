//! A client in Rust: follows a search, and asks for the best schedule after each evaluation.
//!
//! ```text
//! cargo run -p evocache --no-default-features --features cli --example client -- http://127.0.0.1:7447 my-search
//! ```

#![expect(clippy::print_stdout, reason = "the answers are what the example is for")]

use evocache::client::{Client, Constraint, Preference, Question, WatchEvent};
use evocache_proto::domain::SearchId;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(url), Some(id)) = (arguments.next(), arguments.next()) else {
        return Err("usage: client URL SEARCH".into());
    };
    let (client, id) = (Client::connect(&url).await?, SearchId::new(&id)?);
    let question = Question::new(vec![Constraint::MinQualityRatio(0.98)], Preference::Fastest);
    let mut watch = client.watch(&id);
    while let Some(event) = watch.next().await {
        let WatchEvent::State { evaluation: Some(_), .. } = event? else { continue };
        match client.best(&id, question.clone(), false).await {
            Ok(best) => {
                let e = &best.evaluation;
                println!("candidate {}: {:.2}x as fast, schedule {}", e.candidate, e.speedup(), e.schedule.id());
            }
            // Nothing keeps 98 % yet.
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
