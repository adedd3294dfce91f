//! The program `shardtool`, command by command.

mod build;
mod cli;
mod corpus;
mod odd;
mod tools;
