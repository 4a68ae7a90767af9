"""What the suite compares with: C, DPDK's librte_bpf, Linux's BPF; processes that answer; guests under KVM.

Each says why it cannot be had, as a sentence, so that it is skipped by name.
"""
