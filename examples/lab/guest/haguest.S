/* The lab's guest: its firmware is all there is. 64 KiB of ROM, no disk boot, up in a moment under
 * TCG with 16 MiB of memory.
 *
 * On the serial port it prints GUEST-UP, then one character a second:
 *   .  it read its record (sector 1 of the first IDE disk), found its own, and wrote the next
 *   X  the record was written by somebody else since: this guest runs twice
 *   E  the disk reported an error        N  there is no disk
 *   S  the power button was pressed (ACPI): it switches itself off
 *
 * The record is { count, tag }; the tag is the time-stamp counter at start, so every start has its
 * own. The first read after a start accepts any record, and goes on counting from it.
 */
        .code16
        .text
        .globl  _start

        .set    COM1, 0x3f8
        .set    ATA, 0x1f0
        .set    TICKS, 0x46c            /* where a PC BIOS counts timer interrupts, too */
        .set    RECORD, 0x1000
        .set    TICKS_PER_SECOND, 18
        .set    POWER, 0xb000           /* where we put the power management's registers */
        .set    BUTTON, 0x0100
        .set    SLEEP, 0x2000           /* to the state 0: off */

_start: cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7000, %sp

        movw    $hello, %si
1:      movb    %cs:(%si), %al
        testb   %al, %al
        jz      2f
        call    put
        incw    %si
        jmp     1b

        /* The timer's interrupts come through the old controller and the local APIC's pin LINT0,
         * which is masked after reset. The APIC's registers lie above what real mode reaches:
         * fs gets a 4 GiB limit by a short visit to protected mode. */
2:      lgdtl   %cs:table
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $8, %bx
        movw    %bx, %fs
        andb    $0xfe, %al
        movl    %eax, %cr0
        movl    $0xfee00000, %ebx
        addr32 movl $0x1ff, %fs:0xf0(%ebx)      /* APIC on */
        addr32 movl $0x700, %fs:0x350(%ebx)     /* LINT0: external interrupts */

        /* Interrupt 8 is the timer, at 18.2 Hz; everything else stays masked. */
        movw    $tick, 8*4
        movw    $0xf000, 8*4+2
        movl    $0, TICKS
        movb    $0x11, %al
        outb    %al, $0x20
        movb    $0x08, %al
        outb    %al, $0x21
        movb    $0x04, %al
        outb    %al, $0x21
        movb    $0x01, %al
        outb    %al, $0x21
        movb    $0xfe, %al
        outb    %al, $0x21
        movb    $0x34, %al
        outb    %al, $0x43
        xorb    %al, %al
        outb    %al, $0x40
        outb    %al, $0x40

        /* The power button: function 3 of the chip set (00:01.3) has its registers at POWER, in use, and may say
         * that the button was pressed. */
        movl    $0x80000b40, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movl    $POWER + 1, %eax
        movw    $0xcfc, %dx
        outl    %eax, %dx
        movl    $0x80000b80, %eax
        movw    $0xcf8, %dx
        outl    %eax, %dx
        movb    $1, %al
        movw    $0xcfc, %dx
        outb    %al, %dx
        movw    $BUTTON, %ax
        movw    $POWER + 2, %dx
        outw    %ax, %dx

        rdtsc
        movl    %eax, %ebp              /* ebp: my tag */
        xorl    %edi, %edi              /* edi: the count I wrote last, 0 = none yet */
        sti

second: movb    $0x20, %al              /* read sector */
        call    transfer
        jc      failed
        movw    $ATA, %dx
        movw    $256, %cx
        pushw   %di
        movw    $RECORD, %di
        cld
        rep insw
        popw    %di

        movl    RECORD, %eax
        testl   %edi, %edi
        jz      mine
        cmpl    %edi, %eax
        jne     foreign
        cmpl    %ebp, RECORD+4
        je      mine
foreign:
        movb    $'X', %al
        call    put
mine:   movl    RECORD, %edi
        incl    %edi
        movl    %edi, RECORD
        movl    %ebp, RECORD+4

        movb    $0x30, %al              /* write sector */
        call    transfer
        jc      failed
        movw    $ATA, %dx
        movw    $256, %cx
        movw    $RECORD, %si
        rep outsw
        call    ready
        jc      failed
        movb    $'.', %al
failed: call    put                     /* al: '.', 'E' or 'N' */

        movl    TICKS, %ebx
        addl    $TICKS_PER_SECOND, %ebx
nap:    hlt
        movw    $POWER, %dx
        inw     %dx, %ax
        testw   $BUTTON, %ax
        jnz     off
        cmpl    %ebx, TICKS
        jb      nap
        jmp     second

off:    movb    $'S', %al
        call    put
        movw    $SLEEP, %ax
        movw    $POWER + 4, %dx
        outw    %ax, %dx
        hlt
        jmp     off

/* Starts command al on sector 1. Carry and a letter in al when that fails. */
transfer:
        movb    %al, %ah
        movw    $ATA+7, %dx
        inb     %dx, %al
        testb   %al, %al
        jz      none
        cmpb    $0xff, %al
        je      none
        decw    %dx                     /* drive 0, LBA */
        movb    $0xe0, %al
        outb    %al, %dx
        movw    $ATA+2, %dx             /* one sector … */
        movb    $1, %al
        outb    %al, %dx
        incw    %dx                     /* … at address 1 */
        outb    %al, %dx
        xorb    %al, %al
        incw    %dx
        outb    %al, %dx
        incw    %dx
        outb    %al, %dx
        movb    %ah, %al
        movw    $ATA+7, %dx
        outb    %al, %dx
ready:  movw    $ATA+7, %dx
1:      inb     %dx, %al
        testb   $0x80, %al              /* busy */
        jnz     1b
        testb   $0x21, %al              /* device fault, error */
        jnz     bad
        clc
        ret
bad:    movb    $'E', %al
        stc
        ret
none:   movb    $'N', %al
        stc
        ret

/* Prints al. */
put:    movb    %al, %ah
        movw    $COM1+5, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        movb    %ah, %al
        movw    $COM1, %dx
        outb    %al, %dx
        ret

tick:   pushw   %ax
        incl    TICKS                   /* ds is always 0 */
        movb    $0x20, %al
        outb    %al, $0x20
        popw    %ax
        iret

        .align  8
flat:   .quad   0, 0x00cf93000000ffff
table:  .word   15
        .long   0xf0000 + flat
hello:  .asciz  "GUEST-UP\n"

        .org    0xfff0                  /* where a CPU starts */
        ljmp    $0xf000, $_start
        .org    0xffff
        .byte   0
