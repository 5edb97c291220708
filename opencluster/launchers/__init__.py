"""How daemons get onto computers: so far onto this one."""
