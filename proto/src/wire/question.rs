//! The question for the best schedule.

use super::WireError;
use super::error::{at_most, duration};
use crate::domain::limits::MAX_CONDITIONS;
use crate::domain::{Constraint, Operator, Preference, Question};
use crate::pb;
use crate::pb::get_best_schedule_request::Constraint as Single;

/// Reads a question. Whether the search measures the metrics that it names is the search's to check.
pub fn question(message: &pb::GetBestScheduleRequest) -> Result<Question, WireError> {
    at_most("conditions", message.conditions.len(), MAX_CONDITIONS)?;
    let single = message.constraint.iter().map(single);
    let conditions = message.conditions.iter().enumerate().map(|(i, condition)| constraint(i, condition));
    Ok(Question {
        constraints: single.chain(conditions).collect::<Result<_, _>>()?,
        preference: preference(message.preference)?,
        ignore_bounds: message.ignore_bounds,
    })
}

fn single(message: &Single) -> Result<Constraint, WireError> {
    let positive = |field: &str, value: f64| match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => Err(WireError::new(field, format_args!("{value} must be a positive number"))),
    };
    Ok(match message {
        Single::MaxLatencyRatio(ratio) => Constraint::MaxLatencyRatio(positive("max_latency_ratio", *ratio)?),
        Single::MinSpeedup(speedup) => Constraint::MinSpeedup(positive("min_speedup", *speedup)?),
        Single::MaxLatency(latency) => {
            let latency = duration("max_latency", latency)?;
            positive("max_latency", latency.as_secs_f64())?;
            Constraint::MaxLatency(latency)
        }
        Single::MinQuality(value) if value.is_finite() => Constraint::MinQuality(*value),
        Single::MinQuality(value) => {
            return Err(WireError::new("min_quality", format_args!("{value} must be a number")));
        }
        Single::MinQualityRatio(ratio) => Constraint::MinQualityRatio(positive("min_quality_ratio", *ratio)?),
        Single::MaxCacheBytes(bytes) => Constraint::MaxCacheBytes(*bytes),
    })
}

fn constraint(i: usize, message: &pb::Condition) -> Result<Constraint, WireError> {
    let &pb::Condition { ref metric, operator, value, of_uncached } = message;
    let limit = |operator| Constraint::Metric { name: metric.clone(), operator, value, of_uncached };
    match pb::Operator::try_from(operator) {
        // More of the uncached quality is better, whatever the metric's direction.
        Ok(pb::Operator::AsGoodAs) if !of_uncached => Ok(Constraint::AsGoodAs { name: metric.clone(), value }),
        Ok(pb::Operator::AtLeast | pb::Operator::AsGoodAs) => Ok(limit(Operator::AtLeast)),
        Ok(pb::Operator::AtMost) => Ok(limit(Operator::AtMost)),
        Ok(pb::Operator::Unspecified) | Err(_) => {
            Err(WireError::new(format_args!("conditions[{i}].operator"), "must be one of those of Operator"))
        }
    }
}

fn preference(value: i32) -> Result<Preference, WireError> {
    match pb::Preference::try_from(value) {
        Ok(pb::Preference::Unspecified | pb::Preference::Fastest) => Ok(Preference::Fastest),
        Ok(pb::Preference::BestQuality) => Ok(Preference::BestQuality),
        Ok(pb::Preference::Knee) => Ok(Preference::Knee),
        Err(_) => Err(WireError::new("preference", format_args!("unknown value {value}"))),
    }
}

impl From<Operator> for pb::Operator {
    fn from(operator: Operator) -> Self {
        match operator {
            Operator::AtLeast => Self::AtLeast,
            Operator::AtMost => Self::AtMost,
        }
    }
}

impl From<Constraint> for pb::Condition {
    fn from(constraint: Constraint) -> Self {
        let condition = |metric: &str, operator: pb::Operator, value: f64| Self {
            metric: metric.to_owned(),
            operator: operator.into(),
            value,
            of_uncached: false,
        };
        match constraint {
            Constraint::MaxLatencyRatio(ratio) => condition("latency_ratio", pb::Operator::AtMost, ratio),
            Constraint::MinSpeedup(speedup) => condition("speedup", pb::Operator::AtLeast, speedup),
            Constraint::MaxLatency(latency) => {
                condition("latency_us", pb::Operator::AtMost, latency.as_secs_f64() * 1e6)
            }
            Constraint::MinQuality(value) => condition("", pb::Operator::AsGoodAs, value),
            Constraint::MinQualityRatio(ratio) => {
                Self { of_uncached: true, ..condition("", pb::Operator::AtLeast, ratio) }
            }
            Constraint::MaxCacheBytes(bytes) => condition("cache_bytes", pb::Operator::AtMost, bytes as f64),
            Constraint::Metric { name, operator, value, of_uncached } => {
                Self { of_uncached, ..condition(&name, operator.into(), value) }
            }
            Constraint::AsGoodAs { name, value } => condition(&name, pb::Operator::AsGoodAs, value),
        }
    }
}

impl From<Preference> for pb::Preference {
    fn from(preference: Preference) -> Self {
        match preference {
            Preference::Fastest => Self::Fastest,
            Preference::BestQuality => Self::BestQuality,
            Preference::Knee => Self::Knee,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_as_it_is_written() {
        let metric = |name: &str, operator, value, of_uncached| Constraint::Metric {
            name: name.into(),
            operator,
            value,
            of_uncached,
        };
        let constraints = [
            metric("psnr", Operator::AtLeast, 28.0, false),
            metric("lpips", Operator::AtMost, 0.05, false),
            metric("", Operator::AtLeast, 0.98, true),
            Constraint::AsGoodAs { name: "lpips".into(), value: 0.05 },
        ];
        let message = pb::GetBestScheduleRequest {
            constraint: Some(Single::MinSpeedup(2.0)),
            preference: pb::Preference::from(Preference::Knee).into(),
            conditions: constraints.iter().cloned().map(Into::into).collect(),
            ignore_bounds: true,
            ..pb::GetBestScheduleRequest::default()
        };
        let question = question(&message).unwrap();
        assert_eq!(
            (question.constraints[0].clone(), &question.constraints[1..]),
            (Constraint::MinSpeedup(2.0), &constraints[..])
        );
        assert_eq!((question.preference, question.ignore_bounds), (Preference::Knee, true));
    }

    #[test]
    fn a_wrong_question_is_refused_by_field() {
        let ask =
            |constraint| question(&pb::GetBestScheduleRequest { constraint: Some(constraint), ..Default::default() });
        for (constraint, field) in [
            (Single::MaxLatencyRatio(0.0), "max_latency_ratio"),
            (Single::MinSpeedup(f64::NAN), "min_speedup"),
            (Single::MaxLatency(prost_types::Duration { seconds: -1, nanos: 0 }), "max_latency"),
            (Single::MaxLatency(prost_types::Duration::default()), "max_latency"),
            (Single::MinQuality(f64::INFINITY), "min_quality"),
            (Single::MinQualityRatio(-0.5), "min_quality_ratio"),
        ] {
            assert_eq!(ask(constraint).unwrap_err().field(), field);
        }
        assert!(ask(Single::MinQuality(-0.5)).is_ok());
        let conditions = |conditions| question(&pb::GetBestScheduleRequest { conditions, ..Default::default() });
        let unspecified = conditions(vec![pb::Condition::default()]).unwrap_err();
        assert_eq!(unspecified.field(), "conditions[0].operator");
        let good = pb::Condition::from(Constraint::MinSpeedup(2.0));
        assert_eq!(conditions(vec![good; MAX_CONDITIONS + 1]).unwrap_err().field(), "conditions");
    }
}
