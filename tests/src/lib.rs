//! Shared by the tests of several crates: clips, videos and shards made on the spot, real footage
//! and ffmpeg to compare with, small models, and programs to run.

mod batches;
pub mod corpus;
mod footage;
mod models;
pub mod object_server;
mod programs;
mod shards;

pub use batches::{clip_pixels, loader_options};
pub use footage::{TestClip, ffmpeg, ffmpeg_frames, moving_frame, real_videos, write_video};
pub use models::{
    relative_error, small_classifier, small_config, small_mae, small_pretraining, small_run, values,
};
pub use programs::{
    children, copy_all, has_ended, json_lines, parse_report, ran_alone,
    ran_on_each_instruction_set, shown, signal,
};
pub use shards::{
    damage_clip, data_pages, options, shard_sources, write_labelled_shards, write_shards,
    write_shards_with,
};
