//! The service from outside, over loopback: a file for each section of the contract with Tuist's
//! clients, and one for each other client.

#![allow(clippy::unwrap_used, reason = "a test that panics says where and why")]

mod adapters;
mod clients;
mod contract;
mod control;
mod daemon;
mod tenancy;
