//! The service from outside, over loopback: a file for each section of the contract with Tuist's
//! clients, and one for each other client.

mod adapters;
mod clients;
mod contract;
mod control;
mod daemon;
mod tenancy;
