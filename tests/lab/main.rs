//! Ring 3: the lab, a virtual machine with its own kernel, systemd and udev, in which disks can be pulled and power can fail. Each case
//! gets a machine of its own, as it was right after the boot, or with a node at work: it is resumed, not booted. `scripts/lab test` runs it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::pedantic,
    reason = "a test may fail loudly"
)]
#![allow(clippy::disallowed_methods, reason = "tests start processes themselves")]

mod arrays;
mod backend;
mod busy;
mod cache;
mod cuts;
mod disks;
mod guest;
mod machine;
mod measured;
mod parted;
mod pools;
#[path = "../standin/built.rs"]
mod programs;
mod pulled;
mod ready;
#[path = "../recorded/mod.rs"]
mod recordings;
mod rot;
mod states;
mod steps;
mod talk;
mod working;

/// The cases, for one backend. Those that are `long` only `scripts/test --all` runs.
macro_rules! cases {
    ($backend:ident, $is:expr) => {
        mod $backend {
            cases!(@case $is, pulled:
                a_mirror_is_there_again_after_a_boot
                a_member_pulled_while_idle_is_told_by_the_next_check_of_a_timer
                a_member_pulled_under_load_is_replaced_and_no_commit_is_lost
                a_member_that_comes_back_elsewhere_is_made_one_again
                the_disk_of_a_member_comes_again_empty
            );
            cases!(@case $is, cuts:
                each_half_has_the_last_commit_after_a_power_cut
                setup_is_taken_up_after_a_power_cut
                setup_is_taken_back_after_a_power_cut
            );
            cases!(@case $is, states: each_thing_that_is_wrong_is_found);
            cases!(@case $is, parted:
                halves_that_parted_are_never_merged
                halves_that_parted_start_no_node_at_a_boot
            );
            cases!(@case $is, rot: read_errors_are_named_and_cost_nothing write_errors_are_named_and_repaired);
            cases!(@long $is, pulled: a_member_pulled_while_idle_is_told_by_the_next_check_of_cron);
            cases!(@long $is, cuts:
                each_half_has_the_last_commit_after_each_of_20_power_cuts
                setup_is_taken_up_or_back_after_a_power_cut_in_each_step
            );
        }
    };
    (@case $is:expr, $room:ident: $($case:ident)*) => {
        $(#[test]
        fn $case() {
            crate::$room::$case(&$is);
        })*
    };
    (@long $is:expr, $room:ident: $($case:ident)*) => {
        $(#[test]
        #[ignore = "long"]
        fn $case() {
            crate::$room::$case(&$is);
        })*
    };
}

cases!(btrfs, crate::backend::BTRFS);
cases!(mdadm, crate::backend::MDADM);
cases!(zfs, crate::backend::ZFS);

/// What only md has.
mod only_mdadm {
    cases!(@case crate::backend::MDADM, arrays:
        three_members_with_ext4_survive_two
        a_raid10_of_four_is_made_whole_again
        an_array_made_by_hand_is_taken_into_care_and_left_again
    );
    cases!(@long crate::backend::MDADM, busy:
        a_member_goes_while_members_are_compared
        the_new_disk_goes_while_it_is_filled
        the_last_whole_member_goes_while_another_is_filled
    );
    cases!(@case crate::backend::MDADM, rot: silent_corruption_is_counted_and_nothing_is_guessed);
}

/// What only btrfs can promise, or have.
mod only_btrfs {
    cases!(@case crate::backend::BTRFS, parted: a_member_that_lags_keeps_no_node_down_at_a_boot);
    cases!(@case crate::backend::BTRFS, rot: silent_corruption_is_named_and_mended);
    cases!(@case crate::backend::BTRFS, working:
        a_member_pulled_while_a_scrub_runs
        a_device_pulled_while_it_takes_a_members_place
    );
}

/// Any two of three have everything.
mod raidz1 {
    cases!(@case crate::backend::RAIDZ1, pulled:
        a_mirror_is_there_again_after_a_boot
        a_member_pulled_while_idle_is_told_by_the_next_check_of_a_timer
        a_member_pulled_under_load_is_replaced_and_no_commit_is_lost
        a_member_that_comes_back_elsewhere_is_made_one_again
    );
    cases!(@case crate::backend::RAIDZ1, cuts: each_half_has_the_last_commit_after_a_power_cut);
    cases!(@case crate::backend::RAIDZ1, states: each_thing_that_is_wrong_is_found);
    cases!(@case crate::backend::RAIDZ1, rot:
        a_stretch_of_a_member_rots
        read_errors_are_named_and_cost_nothing
        write_errors_are_named_and_repaired
    );
    cases!(@long crate::backend::RAIDZ1, pulled: a_member_pulled_while_idle_is_told_by_the_next_check_of_cron);
    cases!(@long crate::backend::RAIDZ1, cuts:
        each_half_has_the_last_commit_after_each_of_20_power_cuts
        setup_is_taken_up_or_back_after_a_power_cut_in_each_step
    );
}

/// What only ZFS has.
mod only_zfs {
    cases!(@case crate::backend::ZFS, pools:
        a_raidz1_of_three_is_made_whole_again
        a_pool_that_has_stopped_is_told_in_time
        a_disk_of_larger_sectors_is_judged_before_it_is_written_to
        an_equal_disk_of_larger_sectors_takes_a_members_place
        a_pool_made_by_hand_is_taken_into_care_and_left_again
    );
    cases!(@case crate::backend::ZFS, rot: silent_corruption_is_named_and_mended);
    cases!(@long crate::backend::ZFS, busy: the_new_disk_goes_while_it_is_filled);
}
