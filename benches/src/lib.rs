//! Holds no code: the benches are under `benches/benches`.
