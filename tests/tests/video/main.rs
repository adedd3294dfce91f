//! Decoding: frames, clips, damage, codecs and containers, against the ffmpeg command line.

mod codecs;
mod corpus;
mod damage;
mod decode;
