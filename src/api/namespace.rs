//! Core `Namespace`: labels and annotations.

use super::Object;
use super::fields::{Findings, Section};
use super::shape::{Field, METADATA, Shape, field};
use crate::egress::model::Namespace;

pub(super) const FIELDS: &[Field] = &[field(
    "metadata",
    Shape::Open(METADATA),
    "Labels, which selectors look at, and annotations, which are for all its pods.",
)
.required()];

pub(super) fn read(_name: &str, root: &Section<'_>, findings: &mut Findings<'_>) -> Option<Object> {
    let metadata = root.section("metadata", findings);
    let labels = metadata.pairs("labels", findings);
    let annotations = metadata.pairs("annotations", findings);
    Some(Object::Namespace(Namespace { labels, annotations }))
}
