//! A plan as data, the durable record of how far it got, and the executor that applies, resumes and rolls back.
