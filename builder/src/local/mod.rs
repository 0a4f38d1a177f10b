//! Images that the store knows by name: made by `kiln build -t`, read from archives, written to archives, based on by
//! `FROM`. What the store keeps of them is `cache::images`.

pub mod archive;
pub mod documents;
pub mod keep;
pub mod load;
pub mod record;
pub mod save;
