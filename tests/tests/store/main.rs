//! Data in object stores: requests, loading and building.

mod answers;
mod loading;
mod moto;
mod processes;
mod requests;
