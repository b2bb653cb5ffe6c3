/** @swtdx/cli: the swtdx command: assembles the layers. */

export {};
