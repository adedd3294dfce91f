//! An exponential moving average.

/// An exponential moving average, with bias correction.
#[derive(Debug, Clone, Copy)]
pub struct Average {
    keep: f64,
    pub(super) sum: f64,
    pub(super) weight: f64,
}

impl Average {
    /// Creates an average over about the last `values` values, at least one.
    pub fn over(values: f64) -> Self {
        Self {
            keep: 1.0 - 1.0 / values.max(1.0),
            sum: 0.0,
            weight: 0.0,
        }
    }

    /// Adds a value, and returns the mean. Values that are not finite are ignored.
    pub fn push(&mut self, value: f64) -> f64 {
        if !value.is_finite() {
            return self.get();
        }
        self.sum = self.keep * self.sum + value;
        self.weight = self.keep * self.weight + 1.0;
        self.get()
    }

    /// The mean; NaN before the first value.
    pub fn get(&self) -> f64 {
        if self.weight > 0.0 {
            self.sum / self.weight
        } else {
            f64::NAN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_at_the_first_value_and_follows() {
        let mut average = Average::over(4.0);
        assert!(average.get().is_nan() && average.push(f64::NAN).is_nan());
        assert_eq!((average.push(8.0), average.push(f64::INFINITY)), (8.0, 8.0));
        // (0.75 * 8 + 1) / (0.75 + 1)
        assert!((average.push(1.0) - 4.0).abs() < 1e-12);
        assert!(((0..100).map(|_| average.push(1.0)).last().expect("some") - 1.0).abs() < 1e-9);
        let mut last = Average::over(1.0);
        last.push(3.0);
        assert_eq!(last.push(5.0), 5.0);
    }
}
