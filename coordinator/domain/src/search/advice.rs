//! What the search tells its models of the error, when it asks them, and what they answered last.
//!
//! Models take long to think, so they do not think here: whoever drives a [`Breeder`](super::Breeder) hands its
//! [`Lesson`]s to an [`Adviser`](super::Adviser), wherever that runs, and the [`Advice`] back. So that a slow adviser
//! changes nothing but the time, advice has a result from which on it counts: it is not used before, and from there
//! on nothing is proposed without it. How often advice is asked for depends on what came back and on nothing else.
//! Absent: the models, which are in `model/`, and threads, which are the engine's.

use std::sync::Arc;
use std::time::Duration;

use evocache_proto::domain::{CandidateId, Profile, Schedule, ScheduleId, SearchSpec, builtin_direction};

use super::genome::Space;
use crate::pareto::Score;

/// The share of the budget after which only what promises most is tried.
const CLOSING: f64 = 0.85;
/// No model below this many results.
const FIRST: usize = 24;
/// Results from one advice to the next: the 25th part of all, within these limits.
const PAUSE: (usize, usize) = (4, 20);
/// Seconds that models need to think, roughly, for each decision of a schedule.
const SECONDS_PER_CELL: f64 = 1.5e-4;
/// Seconds that they need to hear of a result, roughly, for each decision.
const SECONDS_TO_HEAR: f64 = 2e-6;
/// Models think during at most half of the time.
const SHARE: f64 = 2.0;
/// How fast the mean time of an evaluation follows, and by how much the number of workers is forgotten at each result.
const FOLLOWS: f64 = 0.1;
const FORGETS: f64 = 0.1;

/// Something for the models to learn or to do, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Lesson {
    /// A worker measured how much every output changes from step to step.
    Profile(Arc<Profile>),
    /// A result.
    Result {
        /// Whose.
        candidate: CandidateId,
        /// Its schedule.
        schedule: Arc<Schedule>,
        /// Losses under the first objective that is a cost and the first that is a quality metric.
        losses: (f64, f64),
        /// On all prompts. What was measured on a part of them teaches, but promises nothing.
        whole: bool,
    },
    /// What is believed of results that were told before.
    Rescored(Vec<(CandidateId, (f64, f64))>),
    /// Learn from everything, and say what to try.
    Advise {
        /// To be given back.
        number: u64,
        /// How many schedules will be wanted before the next advice, roughly.
        wanted: usize,
        /// The search is about to end: nothing is to be tried for the sake of learning.
        closing: bool,
    },
}

/// A schedule that a model would try.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Planned {
    pub(super) schedule: Arc<Schedule>,
    pub(super) id: ScheduleId,
    /// The way of planning, as in [`Maker::Planned`](evocache_proto::domain::Maker::Planned).
    pub(super) how: &'static str,
}

/// What the models answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Advice {
    pub(super) number: u64,
    /// What to try, best first; empty while no model is trusted.
    pub(super) plan: Vec<Planned>,
    /// For each model, its name and its rank correlation on fresh results of about equal cost.
    pub(super) correlations: Vec<(&'static str, Option<f64>)>,
}

/// Advice that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Asked {
    number: u64,
    /// Counts from so many results on.
    from: usize,
}

/// One search's side of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Advised {
    /// Which objectives are the cost and the error.
    objectives: (usize, usize),
    /// How long the models need to think, and to hear of one result.
    thinking: f64,
    hearing: f64,
    lessons: Vec<Lesson>,
    /// Those that were handed on, for an adviser in the place of the one that has them.
    heard: Vec<Lesson>,
    told: usize,
    /// Mean time that devices need for an evaluation, in seconds.
    evaluating: f64,
    /// How many candidates are evaluated at a time: the most of late.
    crowd: f64,
    closing: bool,
    /// Results when advice was asked for last.
    last: usize,
    numbers: u64,
    asked: Option<Asked>,
    /// Given, but does not count yet.
    waiting: Option<Advice>,
    advice: Advice,
}

impl Advised {
    /// `None` where there is no cost or no quality metric to model.
    pub(super) fn new(spec: &SearchSpec, space: &Space) -> Option<Self> {
        let steps = space.steps().first().copied()? as usize;
        Some(Self {
            objectives: objectives(spec)?,
            thinking: SECONDS_PER_CELL * (steps * space.slots()) as f64,
            hearing: SECONDS_TO_HEAR * (steps * space.slots()) as f64,
            lessons: Vec::new(),
            heard: Vec::new(),
            told: 0,
            evaluating: 0.0,
            crowd: 1.0,
            closing: false,
            last: 0,
            numbers: 0,
            asked: None,
            waiting: None,
            advice: Advice::default(),
        })
    }

    pub(super) fn calibrate(&mut self, profile: Arc<Profile>) {
        self.lessons.push(Lesson::Profile(profile));
    }

    pub(super) fn tell(&mut self, candidate: CandidateId, schedule: &Arc<Schedule>, score: &Score, whole: bool) {
        let losses = (score.losses[self.objectives.0], score.losses[self.objectives.1]);
        self.lessons.push(Lesson::Result { candidate, schedule: schedule.clone(), losses, whole });
        self.told += 1;
    }

    pub(super) fn rescore(&mut self, scores: impl Iterator<Item = (CandidateId, Score)>) {
        let losses = |score: Score| (score.losses[self.objectives.0], score.losses[self.objectives.1]);
        self.lessons.push(Lesson::Rescored(scores.map(|(candidate, score)| (candidate, losses(score))).collect()));
    }

    /// A result was taken in. `open` are candidates without one, `spent` is the share of the budget used up.
    pub(super) fn pass(&mut self, device_time: Duration, open: usize, spent: f64) {
        let weight = FOLLOWS.max(1.0 / self.told.max(1) as f64);
        self.evaluating += weight * (device_time.as_secs_f64() - self.evaluating);
        // Results come in bursts, after which little is open.
        self.crowd = (self.crowd - FORGETS).max(open as f64 + 1.0);
        self.close(spent);
        self.take();
        if self.asked.is_none() && self.keeps_up() && self.told >= FIRST.max(self.last + self.pause()) {
            // What is open was proposed without this advice, and its results come while the models think.
            self.ask(self.told + self.crowd as usize - 1);
        }
    }

    /// So much of the budget is used up.
    pub(super) fn close(&mut self, spent: f64) {
        self.closing = spent >= CLOSING;
    }

    /// Whether results come no faster than they can be heard of. Where they do, evaluations are cheap, and an answer would
    /// come ever later.
    fn keeps_up(&self) -> bool {
        self.evaluating >= self.hearing * self.crowd
    }

    /// Results from one advice to the next.
    fn pause(&self) -> usize {
        // Evaluations that cost nothing are not worth a thought.
        let meanwhile = SHARE * self.thinking / self.evaluating.max(1e-9) * self.crowd;
        self.news().max(self.crowd as usize - 1).max(meanwhile as usize)
    }

    /// Results from one advice to the next where models think fast.
    fn news(&self) -> usize {
        (self.told / 25).clamp(PAUSE.0, PAUSE.1)
    }

    fn ask(&mut self, from: usize) {
        self.numbers += 1;
        let (number, wanted, closing) = (self.numbers, 2 * self.news(), self.closing);
        self.lessons.push(Lesson::Advise { number, wanted, closing });
        self.asked = Some(Asked { number, from });
        self.last = self.told;
    }

    /// The models are gone: new ones are to hear everything again. Their first advice counts when the next one would have.
    pub(super) fn resume(&mut self, open: usize) {
        (self.asked, self.waiting, self.advice) = (None, None, Advice::default());
        self.hand_on();
        self.lessons = std::mem::take(&mut self.heard);
        self.crowd = open as f64 + 1.0;
        let pause = self.pause();
        if self.keeps_up() && self.told >= FIRST.max(pause) {
            self.ask(self.told + pause);
        }
    }

    /// Answers to the questions of another one do not count for this one: its numbers start after theirs.
    pub(super) fn ignore_answers_to(&mut self, other: &Self) {
        self.numbers += other.numbers;
        for lesson in &mut self.lessons {
            if let Lesson::Advise { number, .. } = lesson {
                *number += other.numbers;
            }
        }
        if let Some(asked) = &mut self.asked {
            asked.number += other.numbers;
        }
    }

    pub(super) fn give(&mut self, advice: Advice) {
        if self.asked.is_some_and(|asked| asked.number == advice.number) {
            self.waiting = Some(advice);
            self.take();
        }
    }

    fn take(&mut self) {
        if self.asked.is_some_and(|asked| self.told >= asked.from)
            && let Some(advice) = self.waiting.take()
        {
            (self.advice, self.asked) = (advice, None);
        }
    }

    /// Whether nothing may be proposed before the adviser has answered.
    pub(super) fn is_awaited(&self) -> bool {
        self.asked.is_some_and(|asked| self.told >= asked.from)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    pub(super) fn current(&self) -> &Advice {
        &self.advice
    }

    /// What is to be heard now.
    pub(super) fn lessons(&mut self) -> Vec<Lesson> {
        if self.keeps_up() || self.asked.is_some() { self.hand_on() } else { Vec::new() }
    }

    /// All that is still to be heard. Kept of it, and of what was heard before, is what would have to be heard again: no
    /// questions, and only the last of what was rescored.
    fn hand_on(&mut self) -> Vec<Lesson> {
        let lessons = std::mem::take(&mut self.lessons);
        let is_rescored = |lesson: &Lesson| matches!(lesson, Lesson::Rescored(_));
        let last = lessons.iter().rposition(is_rescored);
        if last.is_some() {
            self.heard.retain(|lesson| !is_rescored(lesson));
        }
        let kept = |(at, lesson): &(usize, &Lesson)| match lesson {
            Lesson::Advise { .. } => false,
            Lesson::Rescored(_) => Some(*at) == last,
            Lesson::Profile(_) | Lesson::Result { .. } => true,
        };
        self.heard.extend(lessons.iter().enumerate().filter(kept).map(|(_, lesson)| lesson.clone()));
        lessons
    }
}

/// Which objectives are the first cost and the first quality metric.
pub(super) fn objectives(spec: &SearchSpec) -> Option<(usize, usize)> {
    let find = |builtin: bool| spec.objectives.iter().position(|o| builtin_direction(&o.metric).is_some() == builtin);
    Some((find(true)?, find(false)?))
}
