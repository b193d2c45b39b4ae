#!/usr/bin/env bash
# Starts a real Slurm of one node on this machine, to try studies on it: bash scripts/slurm.sh  (as root; Debian's packages)
# It keeps no accounts, so ask Snakemake for --slurm-status-command squeue. "bash scripts/slurm.sh stop" ends it.
set -euo pipefail
if [[ ${1:-start} == stop ]]; then
    pkill -x slurmd || true
    pkill -x slurmctld || true
    pkill -x munged || true
    exit 0
fi
if ! command -v slurmctld sbatch munged > /dev/null; then
    apt-get install -y -q slurm-wlm munge
fi
node=$(hostname -s)
mkdir -p /etc/slurm /var/spool/slurmctld /var/spool/slurmd /var/log/slurm /run/munge
[[ -f /etc/munge/munge.key ]] || dd if=/dev/urandom of=/etc/munge/munge.key bs=1 count=1024 status=none
chown -R munge:munge /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 400 /etc/munge/munge.key
cat > /etc/slurm/slurm.conf << EOF
ClusterName=one
SlurmctldHost=$node(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.log
MinJobAge=300
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/Mem/ {print int($2 * 0.9)}') State=UNKNOWN
PartitionName=main Nodes=$node Default=YES MaxTime=INFINITE State=UP
EOF
pgrep -x munged > /dev/null || runuser -u munge -- munged
pgrep -x slurmctld > /dev/null || slurmctld
pgrep -x slurmd > /dev/null || slurmd
for _ in $(seq 30); do
    if [[ $(sinfo -h -o %T 2> /dev/null) == idle ]]; then
        sinfo
        exit 0
    fi
    sleep 1
done
sinfo
echo "the node is not idle; see /var/log/slurm" >&2
exit 1
