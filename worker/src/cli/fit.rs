//! Linear regression with one variable.

/// `y = fixed + slope · x`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Line {
    pub(super) fixed: f64,
    pub(super) slope: f64,
    /// Coefficient of determination R².
    pub(super) r_squared: f64,
}

/// The least-squares line through points `(x, y)`; `None` without two different `x`.
pub(super) fn line(points: &[(f64, f64)]) -> Option<Line> {
    let n = points.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(f).sum::<f64>() / n;
    let (mx, my) = (mean(&|p| p.0), mean(&|p| p.1));
    let xx = mean(&|p| (p.0 - mx).powi(2));
    let xy = mean(&|p| (p.0 - mx) * (p.1 - my));
    let yy = mean(&|p| (p.1 - my).powi(2));
    if xx <= 0.0 || xx.is_nan() {
        return None;
    }
    let slope = xy / xx;
    Some(Line { fixed: my - slope * mx, slope, r_squared: if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let found = line(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]);
        assert_eq!(found, Some(Line { fixed: 3.0, slope: 2.0, r_squared: 1.0 }));
        assert_eq!(line(&[(1.0, 2.0)]), None);
        assert_eq!(line(&[]), None);
    }
}
