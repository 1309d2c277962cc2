//! The front as a drawing: latency ratio against quality, as SVG.

use evocache_proto::text::lines;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (960, 620);
const GREY: RGBColor = RGBColor(198, 202, 208);
const SEED: RGBColor = RGBColor(130, 136, 146);
const FRONT: RGBColor = RGBColor(31, 99, 178);
const CHOSEN: RGBColor = RGBColor(214, 92, 20);
const INK: RGBColor = RGBColor(40, 44, 52);

/// A point in the drawing: latency ratio and quality.
pub(super) type Point = (f64, f64);

/// The content of a drawing.
#[derive(Debug, Clone, Default)]
pub(super) struct Chart {
    /// Title above the drawing.
    pub(super) title: String,
    /// Name of the vertical axis.
    pub(super) quality: String,
    /// Bred schedules that another one dominates.
    pub(super) dominated: Vec<Point>,
    /// Heuristic schedules, dominated or not.
    pub(super) seeds: Vec<Point>,
    /// The front, fastest first.
    pub(super) front: Vec<Point>,
    /// Whether the front is drawn as a line; it is none with more than two objectives.
    pub(super) line: bool,
    /// The uncached run.
    pub(super) uncached: Option<Point>,
    /// The chosen schedules, each with its label.
    pub(super) chosen: Vec<(String, Point)>,
}

/// Draws a chart as SVG.
pub(super) fn draw(chart: &Chart) -> Result<String, String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw_on(&root, chart).map_err(|e| e.to_string())?;
    }
    Ok(lines(&svg).into_owned())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Context<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw_on(root: &Area<'_>, chart: &Chart) -> Drawn {
    root.fill(&WHITE)?;
    let matter: Vec<Point> =
        chart.front.iter().copied().chain(chart.uncached).chain(chart.chosen.iter().map(|c| c.1)).collect();
    let (x, y) = (range(matter.iter().map(|p| p.0)), range(matter.iter().map(|p| p.1)));
    let mut context = ChartBuilder::on(root)
        .caption(&chart.title, ("sans-serif", 20, &INK))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(66)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    context
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.5))
        .axis_style(SEED)
        .label_style(("sans-serif", 13, &INK))
        .axis_desc_style(("sans-serif", 15, &INK))
        .x_desc("latency over the uncached latency (further left is faster)")
        .y_desc(&chart.quality)
        .draw()?;
    let inside = |p: &&Point| p.0 >= x.0 && p.0 <= x.1 && p.1 >= y.0 && p.1 <= y.1;
    dots(&mut context, chart.dominated.iter().filter(inside), "beaten by another schedule", GREY, 3, true)?;
    dots(&mut context, chart.seeds.iter().filter(inside), "heuristic seed", SEED, 4, false)?;
    if chart.line {
        context.draw_series(LineSeries::new(stairs(&chart.front), FRONT.stroke_width(2)))?;
    }
    dots(&mut context, chart.front.iter(), "front", FRONT, 4, true)?;
    if let Some(point) = &chart.uncached {
        dots(&mut context, [point].into_iter(), "uncached", INK, 5, true)?;
    }
    chosen(&mut context, &chart.chosen, x)?;
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(GREY)
        .label_font(("sans-serif", 14, &INK))
        .draw()?;
    root.present()
}

fn dots<'p>(
    context: &mut Context<'_, '_>,
    points: impl Iterator<Item = &'p Point>,
    label: &str,
    color: RGBColor,
    radius: i32,
    filled: bool,
) -> Drawn {
    let style = ShapeStyle { color: color.into(), filled, stroke_width: 1 };
    context
        .draw_series(points.map(|&point| Circle::new(point, radius, style)))?
        .label(label)
        .legend(move |(x, y)| Circle::new((x + 8, y), radius, style));
    Ok(())
}

fn chosen(context: &mut Context<'_, '_>, chosen: &[(String, Point)], x: (f64, f64)) -> Drawn {
    let ring = CHOSEN.stroke_width(2);
    let mut merged: Vec<(String, Point)> = vec![];
    for (label, point) in chosen {
        match merged.iter_mut().find(|(_, other)| other == point) {
            Some((labels, _)) => *labels += &format!(", {label}"),
            None => merged.push((label.clone(), *point)),
        }
    }
    for (label, point) in merged {
        // Labels extend towards the middle, so that they stay inside the drawing.
        let right_half = point.0 > f64::midpoint(x.0, x.1);
        let (side, offset) = if right_half { (HPos::Right, -11) } else { (HPos::Left, 11) };
        let style = ("sans-serif", 14).into_font().color(&CHOSEN).pos(Pos::new(side, VPos::Top));
        let mark = EmptyElement::at(point) + Circle::new((0, 0), 8, ring) + Text::new(label, (offset, 6), style);
        context.draw_series(std::iter::once(mark))?;
    }
    Ok(())
}

/// The border of what the front dominates: down from each point to the quality of the next, then across.
fn stairs(front: &[Point]) -> Vec<Point> {
    let mut line = vec![];
    for (i, &(x, y)) in front.iter().enumerate() {
        if i > 0 {
            line.push((x, front[i - 1].1));
        }
        line.push((x, y));
    }
    line
}

/// From the smallest to the largest value with a margin; around a single value, one unit.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = if high > low { 0.06 * (high - low) } else { 0.5 };
    (low - room, high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_has_everything_but_outliers() {
        let chart = Chart {
            title: "a <title>\u{1b}".into(),
            quality: "clip_score".into(),
            dominated: vec![(0.5, 0.5), (0.6, -90.0)],
            seeds: vec![(0.55, 0.7)],
            front: vec![(0.3, 0.4), (0.5, 0.8), (0.9, 0.9)],
            line: true,
            uncached: Some((1.0, 0.89)),
            chosen: vec![("98 % quality".into(), (0.5, 0.8)), ("knee".into(), (0.5, 0.8))],
        };
        let svg = draw(&chart).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["clip_score", "98 % quality, knee", "heuristic seed", "uncached", "a &lt;title&gt;\\u{1b}"] {
            assert!(svg.contains(text), "{text} is not in the drawing");
        }
        assert_eq!(svg.matches("r=\"3\"").count(), 2, "one dominated point and its legend; the outlier is left out");
        assert_eq!(svg, draw(&chart).unwrap(), "the same chart is the same file");
    }

    #[test]
    fn a_front_of_one_point_can_be_drawn() {
        let chart = Chart { front: vec![(1.0, 0.9)], line: true, ..Chart::default() };
        assert!(draw(&chart).is_ok());
        assert!(draw(&Chart::default()).is_ok());
        assert_eq!(stairs(&[(0.1, 0.2), (0.3, 0.5)]), [(0.1, 0.2), (0.3, 0.2), (0.3, 0.5)]);
    }
}
