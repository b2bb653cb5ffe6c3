/** @swtdx/abi: numbers and layouts of every public TDX interface, as tables with typed encoders and decoders. */

export {};
