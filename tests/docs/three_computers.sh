#!/bin/bash
# Three computers, node1 to node3, each with a name, a home and a network of its own, and
# a cable to the same switch. Run by `unshare --net --mount --pid --fork`, so that all of
# it is gone when this ends. Each line of standard input names a computer and a file of
# commands; its exit status is the answer. ssh and scp are stood in for, as there is
# nobody to log in as.
set -eu
homes=$1

mkdir -p /run/netns
mount -t tmpfs none /run/netns
echo "127.0.0.1 localhost" > "$homes/hosts"
for n in 1 2 3; do echo "10.78.0.$n node$n" >> "$homes/hosts"; done
mount --bind "$homes/hosts" /etc/hosts

cat > "$homes/bin/on" <<END
#!/bin/bash
# on COMPUTER COMMAND...: run a command there
computer=\$1; shift
exec ip netns exec \$computer unshare --uts env HOME="$homes/\$computer" \\
    sh -c 'hostname "\$0"; cd; exec "\$@"' \$computer "\$@"
END
cat > "$homes/bin/ssh" <<'END'
#!/bin/bash
computer=$1; shift
exec on "$computer" bash -c "$*"
END
cat > "$homes/bin/scp" <<END
#!/bin/bash
# scp [-p] FILE... COMPUTER:FOLDER
to=\${!#}
exec cp "\${@:1:\$#-1}" "$homes/\${to/://}"
END
chmod +x "$homes"/bin/*

ip link add name switch type bridge
ip link set switch up
for n in 1 2 3; do
    mkdir -p "$homes/node$n"
    ip netns add node$n
    ip link add name cable$n type veth peer name eth0 netns node$n
    ip link set cable$n master switch up
    ip -netns node$n link set lo up
    ip -netns node$n link set eth0 up
    ip -netns node$n address add 10.78.0.$n/24 dev eth0
done
echo ready
while read -r computer file; do
    "$homes/bin/on" "$computer" bash -eu "$file" < /dev/null > "$file.out" 2> "$file.err" &&
        echo 0 || echo $?
done
