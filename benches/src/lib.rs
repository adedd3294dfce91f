//! Criterion benches of the stages: `cargo bench --package benches`.
