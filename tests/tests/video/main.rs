//! Decoding: frames, clips, damage, and a corpus of codecs, containers, colours and times, against
//! the ffmpeg command line.

mod corpus;
mod damage;
mod decode;
