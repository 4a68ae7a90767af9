"""The BPF instruction set of RFC 9669, cpu v4, without legacy packet access."""
