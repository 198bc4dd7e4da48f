import { describe, expect, it } from "vitest";
import { crc32c, record, scalar } from "./event-file";

describe("event files", () => {
  it("CRC-32C has the values of RFC 3720, B.4", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  });

  it("a record is length, checksum, data, checksum", () => {
    const framed = record(Buffer.from("123456789"));
    expect(framed.readBigUInt64LE(0)).toBe(9n);
    expect(framed.subarray(12, 21).toString()).toBe("123456789");
    // ((crc >> 15) | (crc << 17)) + 0xa282ead8 of 0xe3069283
    expect(framed.readUInt32LE(21)).toBe(0xc78ab0e5);
    expect(framed).toHaveLength(25);
  });

  it("a scalar is a value of tag and float, bytes as protoc writes them", () => {
    expect(scalar("loss", 0.5).toString("hex")).toBe("0a0b0a046c6f7373150000003f");
  });
});
