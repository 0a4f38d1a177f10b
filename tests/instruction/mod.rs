//! What each instruction does to the image.

mod arg;
mod config;
mod copy;
mod ignore;
mod run;
mod stages;
