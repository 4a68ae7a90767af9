"""Program objects: reading ELF and BTF, and what a program is before and after verification."""
