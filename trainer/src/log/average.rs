//! A running mean of what changes slowly under noise.

/// A mean in which older values count less and less, corrected for its start at nothing.
#[derive(Debug, Clone, Copy)]
pub struct Average {
    keep: f64,
    pub(super) sum: f64,
    pub(super) weight: f64,
}

impl Average {
    /// A mean over about the last `values` values, of which there are at least one.
    pub fn over(values: f64) -> Self {
        Self { keep: 1.0 - 1.0 / values.max(1.0), sum: 0.0, weight: 0.0 }
    }

    /// Takes a value in, and gives the mean. What is no finite number changes nothing.
    pub fn push(&mut self, value: f64) -> f64 {
        if !value.is_finite() {
            return self.get();
        }
        self.sum = self.keep * self.sum + value;
        self.weight = self.keep * self.weight + 1.0;
        self.get()
    }

    /// The mean; not a number of nothing.
    pub fn get(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { f64::NAN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_the_first_value_and_follows() {
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
