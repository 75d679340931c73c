//! Empty: the manifest is all.
