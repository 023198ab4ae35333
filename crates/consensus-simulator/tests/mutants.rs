//! Every broken rule is noticed.
