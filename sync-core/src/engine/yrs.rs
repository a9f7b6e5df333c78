//! yrs.
