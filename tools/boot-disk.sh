#!/usr/bin/env bash
# A disk that boots as a cloud image does: GPT with an EFI system partition, on it shim where firmware looks for a boot
# loader, GRUB where shim looks for it, grub.cfg where Debian's signed GRUB looks for it, a kernel and an initial RAM
# disk. Equal files give equal disks.
#
#   tools/boot-disk.sh --shim FILE --grub FILE --kernel FILE --initrd FILE [--append STR] [--unsigned PART] DISK
#
# --unsigned shim|grub|kernel takes that part's signature away, so that a firmware with Secure Boot refuses the disk.
# Needs Debian's mtools, dosfstools and gdisk; for --unsigned sbsigntool.
set -euo pipefail
export PATH=$PATH:/usr/sbin

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  echo "${0##*/}: $*" >&2
  exit 2
}

declare -A part=()
append="console=ttyS0" unsigned="" disk=""
while [ $# -gt 0 ]; do
  case $1 in
    --shim | --grub | --kernel | --initrd) part[${1#--}]=${2:?$1: a file} && shift 2 ;;
    --append) append=${2?$1: a string} && shift 2 ;;
    --unsigned) unsigned=${2:?$1: shim, grub or kernel} && shift 2 ;;
    -*) usage "unknown option $1" ;;
    *) disk=$1 && shift ;;
  esac
done
for name in shim grub kernel initrd; do
  [ -n "${part[$name]:-}" ] || usage "--$name is missing"
  [ -r "${part[$name]}" ] || usage "${part[$name]}: cannot be read"
done
[ -n "$disk" ] || usage "the disk's name is missing"
tools="mcopy mmd mkfs.vfat sgdisk"
case $unsigned in
  "") ;;
  shim | grub | kernel) tools+=" sbattach" ;;
  *) usage "--unsigned: \"$unsigned\" is not shim, grub or kernel" ;;
esac
for tool in $tools; do
  command -v "$tool" >/dev/null || usage "$tool is not there: apt-get install mtools dosfstools gdisk sbsigntool"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Files carry no time of today's.
export SOURCE_DATE_EPOCH=1767225600 TZ=UTC MTOOLS_SKIP_CHECK=1
for name in "${!part[@]}"; do cp "${part[$name]}" "$work/$name"; done
# An image may be signed several times, as Debian's shim is.
if [ -n "$unsigned" ]; then
  sbattach --remove "$work/$unsigned" 2>/dev/null
  while sbattach --remove "$work/$unsigned" >/dev/null 2>&1; do :; done
fi
cat >"$work/grub.cfg" <<EOF
echo "GRUB: loading Linux"
linux /vmlinuz $append
initrd /initrd.gz
boot
EOF
touch -d "@$SOURCE_DATE_EPOCH" "$work"/*

esp=$work/esp mebibytes=$(($(cat "$work"/* | wc -c) / 1048576 + 4))
truncate -s ${mebibytes}M "$esp"
mkfs.vfat --invariant -F 16 -n ESP -i 53575458 "$esp" >/dev/null
mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
while read -r from to; do
  mcopy -m -i "$esp" "$work/$from" "::$to"
done <<EOF
shim /EFI/BOOT/BOOTX64.EFI
grub /EFI/BOOT/grubx64.efi
grub.cfg /EFI/debian/grub.cfg
kernel /vmlinuz
initrd /initrd.gz
EOF

# A MiB before the partition, and one after it for the second table.
rm -f "$disk"
truncate -s $((mebibytes + 2))M "$disk"
sgdisk --clear --disk-guid=5357544e-4449-534b-8000-000000000001 --new=1:2048:+${mebibytes}M --typecode=1:ef00 \
  --partition-guid=1:5357544e-4449-534b-8000-000000000002 --change-name=1:ESP "$disk" >/dev/null
dd if="$esp" of="$disk" bs=1M seek=1 conv=notrunc status=none
