//! (to come)
use crate::{Arguments, rows::Rows};
use egret::testbed::Trouble;
pub fn measure(_: &Arguments, _: &mut Rows) -> Result<(), Trouble> {
    Ok(())
}
