//! Tests of the partition as a whole: scenarios a reader can follow, and random ones against a
//! model.

mod checkpoint;
mod delivery;
mod domains;
mod life;
mod model;
mod random;
mod setup;
