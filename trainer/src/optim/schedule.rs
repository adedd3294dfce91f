//! The learning rate schedule.

use std::f64::consts::PI;

/// Linear warm-up from 0, then half a cosine down to 0 (Loshchilov and Hutter 2017), updated every
/// step as in the reference implementation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The peak rate.
    pub peak: f64,
    /// Warm-up steps.
    pub warmup_steps: u64,
    /// Total steps.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate after `done` steps.
    pub fn rate(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return self.peak * done as f64 / self.warmup_steps as f64;
        }
        let share =
            (done - self.warmup_steps) as f64 / (self.steps - self.warmup_steps).max(1) as f64;
        self.peak * 0.5 * (1.0 + (PI * share.min(1.0)).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_linearly_and_falls_as_a_cosine() {
        let schedule = Schedule {
            peak: 2.0,
            warmup_steps: 4,
            steps: 12,
        };
        let rates: Vec<f64> = (0..=12).map(|done| schedule.rate(done)).collect();
        assert_eq!(rates[..5], [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert!((rates[8] - 1.0).abs() < 1e-12);
        assert!((rates[6] - (1.0 + (PI / 4.0).cos())).abs() < 1e-12);
        assert_eq!(rates[12], 0.0);
    }
}
